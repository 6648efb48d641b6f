# SPDX-License-Identifier: Apache-2.0
"""The folder of an archive: made whole or not at all, and what it says about itself."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from vesalius.errors import DataError, UsageError
from vesalius.files import fsync_folder, read_json, write_json
from vesalius.store.words import RULES
from vesalius.types import Json

FORMAT = 1
_ABOUT = "archive.json"


def make(target: Path, about: Json, fill: Callable[[Path], object]) -> None:
    """Make a folder that says `about` itself and holds what `fill(folder)` puts in it.

    Raises:
        UsageError: something is there already.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageError(f"{target} is there already: open it, or name another folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent))
    try:
        fill(partial)
        write_json(partial / _ABOUT, {"format": FORMAT, "words": RULES, **about})
        partial.chmod(0o755)
        os.replace(partial, target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    fsync_folder(target.parent)


def about(folder: Path) -> Json:
    """Return what an archive says about itself.

    Raises:
        DataError: no archive, or one that another version of this package made.
    """
    try:
        found: Json = read_json(folder / _ABOUT)
    except FileNotFoundError as error:
        raise DataError(
            f"{folder} is no archive (it has no {_ABOUT}): make one with `vesalius index`"
        ) from error
    except (OSError, ValueError) as error:
        raise DataError(f"{folder / _ABOUT} cannot be read: {error}") from error
    if found.get("format") != FORMAT or found.get("words") != RULES:
        raise DataError(
            f"the archive {folder} was made by another version of Vesalius (format "
            f"{found.get('format')}, words {found.get('words')}; this one reads {FORMAT} and "
            f"{RULES}): index again with `vesalius index`, or use that version"
        )
    return found
