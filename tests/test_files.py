# SPDX-License-Identifier: Apache-2.0
"""Durable files: whole or not at all, and flushed before they are acknowledged."""

from __future__ import annotations

import os
import stat

import pytest

from vesalius import files


def test_json_round_trip_in_a_new_folder(tmp_path):
    path = files.write_json(tmp_path / "a" / "b.json", {"z": 1, "ü": [1.5, None]})
    assert files.read_json(path) == {"z": 1, "ü": [1.5, None]}
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(path, float("nan"))
    assert files.read_json(path) == {"z": 1, "ü": [1.5, None]}


def test_a_failed_write_leaves_the_old_content_and_no_litter(tmp_path):
    path = files.write_text(tmp_path / "a.txt", "old")

    def fail(stream):
        stream.write(b"half")
        raise RuntimeError("no space")

    with pytest.raises(RuntimeError, match="no space"):
        files.write_atomically(path, fail)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_content_and_folder_are_flushed_in_order(tmp_path, monkeypatch):
    """File before rename, folder after it: anything else can lose an acknowledged file."""
    calls = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(handle):
        calls.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        real_fsync(handle)

    def replace(source, target):
        calls.append("rename")
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    files.write_text(tmp_path / "a.txt", "new")
    assert calls == ["file", "rename", "folder"]


def test_a_tree_is_flushed_from_a_time_on(tmp_path):
    (tmp_path / "in").mkdir()
    old, new = tmp_path / "in" / "old", tmp_path / "in" / "new"
    old.touch()
    new.touch()
    os.utime(old, (1, 1))
    assert files.fsync_tree(tmp_path) == 2
    assert files.fsync_tree(tmp_path, newer_than=1000) == 1
