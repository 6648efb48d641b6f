# SPDX-License-Identifier: Apache-2.0
"""Pseudonyms: keyed, kinds apart, key file private and kept."""

from __future__ import annotations

import hashlib
import stat
from pathlib import Path

import pytest

from vesalius.cohorts.pseudonyms import KEY_FILE, Pseudonyms, ensure_key, load_key
from vesalius.errors import UsageError


def test_is_keyed_blake2b_and_tells_kinds_apart() -> None:
    one, other = Pseudonyms(b"a" * 32), Pseudonyms(b"b" * 32)
    wanted = hashlib.blake2b(b"patient\0Smith", key=b"a" * 32, digest_size=8).hexdigest()
    assert one("patient", "Smith") == f"p-{wanted}"
    assert one("patient", "Smith") != other("patient", "Smith")
    assert one("patient", "X")[2:] != one("study", "X")[2:]
    assert one("row", "a", "bc") != one("row", "ab", "c")
    assert one("patient", "") == ""


def test_key_is_private_kept_and_shared(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.mkdir()
    second.mkdir()
    key = ensure_key(first)
    assert stat.S_IMODE((first / KEY_FILE).stat().st_mode) == 0o600
    assert ensure_key(first) == key == load_key(first / KEY_FILE)
    assert ensure_key(second, first / KEY_FILE) == key
    third = tmp_path / "c"
    third.mkdir()
    other = ensure_key(third)
    assert other != key
    with pytest.raises(UsageError, match="another pseudonym key"):
        ensure_key(third, first / KEY_FILE)


@pytest.mark.parametrize("text", [None, "no hex", "abcd"])
def test_what_is_no_key_is_refused(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "k"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError):
        load_key(path)
