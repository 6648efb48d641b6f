# SPDX-License-Identifier: Apache-2.0
"""Pseudonyms: keyed BLAKE2b (RFC 7693) of identifiers; whoever lacks the key cannot test a guess.

The key is 32 random bytes in `pseudonym.key`, readable by its owner alone. Two cohorts made with
the same key give one patient the same pseudonym; without it they cannot be linked.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path

from vesalius import files
from vesalius.errors import UsageError
from vesalius.types import PathLike

KEY_FILE = "pseudonym.key"
_PREFIX = {"patient": "p-", "study": "s-", "series": "e-", "site": "i-", "row": ""}
_BYTES = 8  # 64 bits: two of a million patients share a pseudonym with probability 3e-8


class Pseudonyms:
    """Maps identifiers to pseudonyms; `kind` keeps equal identifiers of two kinds apart."""

    def __init__(self, key: bytes) -> None:
        if len(key) != 32:
            raise UsageError(f"a pseudonym key has 32 bytes, got {len(key)}")
        self.key = key

    def __call__(self, kind: str, *identifier: str) -> str:
        """Return the pseudonym of an identifier: `p-…` patient, `s-…` study, `e-…` series.

        An empty identifier stays empty. A row's key has no prefix.
        """
        if not any(identifier):
            return ""
        text = "\0".join((kind, *identifier)).encode("utf-8", "surrogateescape")
        return _PREFIX[kind] + hashlib.blake2b(text, key=self.key, digest_size=_BYTES).hexdigest()


def load_key(path: PathLike) -> bytes:
    """Read a key file; `UsageError` when it is absent or no key."""
    try:
        key = bytes.fromhex(Path(path).read_text(encoding="ascii").strip())
    except FileNotFoundError as error:
        raise UsageError(
            f"no pseudonym key at {path}: name the `{KEY_FILE}` of an existing cohort, "
            "or leave the option out to make a new key"
        ) from error
    except ValueError as error:
        raise UsageError(
            f"{path} is no pseudonym key: it must hold 64 hexadecimal digits"
        ) from error
    if len(key) != 32:
        raise UsageError(f"{path} is no pseudonym key: it holds {len(key)} bytes, expected 32")
    return key


def ensure_key(folder: PathLike, shared: PathLike | None = None) -> bytes:
    """Return the cohort's key, made (or copied from `shared`) on the first call, durably.

    `UsageError` when the cohort has another key than `shared`: its rows would change names.
    """
    path = Path(folder) / KEY_FILE
    wanted = None if shared is None else load_key(shared)
    if path.exists():
        key = load_key(path)
        if wanted is not None and wanted != key:
            raise UsageError(
                f"the cohort {folder} already has another pseudonym key than {shared}: "
                "scan into a new folder, or leave the option out"
            )
        return key
    key = wanted or secrets.token_bytes(32)
    temporary = path.with_name(f".{KEY_FILE}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as stream:
        stream.write(key.hex() + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, path)
    files.fsync_folder(folder)
    return key
