# SPDX-License-Identifier: Apache-2.0
"""Walk a data root and enter what is new or changed into the index; nothing is read yet.

Folders are listed with `os.scandir` and compared with the index in batches, so that neither a
large tree nor a large folder is ever held in memory. A file is unchanged when its size and its
modification time (nanoseconds) are. Hidden entries, system litter, other cohorts and anything that
is no regular file (after following links) are passed over.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from vesalius.cohorts import parsing
from vesalius.cohorts.index import Index, to_text
from vesalius.cohorts.quality.findings import finding
from vesalius.cohorts.schema import IMAGES
from vesalius.results import Finding

_BATCH = 4096
_LITTER = frozenset({"thumbs.db", "desktop.ini", "__macosx"})
_DEEPEST = 200  # folders; deeper is a loop of links


@dataclass(slots=True)
class Walked:
    """What a walk met: files, those new or changed, those gone."""

    files: int = 0
    changed: int = 0
    deleted: int = 0


def walk(
    index: Index,
    root: int,
    top: Path,
    *,
    generation: int,
    only: str = "",
    skip: Path | None = None,
    tick: Callable[[Walked], None] = lambda _walked: None,
) -> Walked:
    """Bring the index's list of files of a root up to date.

    `only` names one file of it; `skip` is a folder to pass over; `tick` is called once a folder.
    """
    result = Walked()
    index.retry(root)
    if only:
        folder, _ = index.enter_folder(root, "", generation)
        status = os.stat(top / only)
        _compare(index, folder, [(to_text(only), status.st_size, status.st_mtime_ns)], result)
        return result
    skipped = os.stat(skip) if skip is not None and skip.exists() else None
    barred = frozenset({(skipped.st_dev, skipped.st_ino)} if skipped else ())
    pending = [("", str(top), barred)]
    while pending:
        path, full, above = pending.pop()
        inside = _folder(index, root, path, full, generation, result)
        tick(result)
        try:
            status = os.stat(full)
        except OSError:
            continue
        here = above | {(status.st_dev, status.st_ino)}
        for name in sorted(inside, reverse=True):
            child = os.path.join(full, name)
            try:
                below = os.stat(child)
            except OSError:
                continue
            if (below.st_dev, below.st_ino) not in here and len(here) < _DEEPEST:
                text = to_text(name)
                pending.append((f"{path}/{text}" if path else text, child, here))
    result.deleted += index.forget_unseen(root, generation)
    return result


def _folder(
    index: Index, root: int, path: str, full: str, generation: int, result: Walked
) -> list[str]:
    """Compare the files of one folder with the index; return the folders in it."""
    if os.path.isdir(os.path.join(full, IMAGES + ".lance")):
        return []  # a cohort: its tables are no data
    folder, _ = index.enter_folder(root, path, generation)
    inside: list[str] = []
    met = 0
    try:
        files = _files(full, inside)
        while batch := list(islice(files, _BATCH)):
            _compare(index, folder, batch, result)
            met += len(batch)
    except OSError as error:
        message = f"a folder cannot be listed ({error.strerror})"
        news = index.note_folder(folder, _unlisted(message))
        result.changed += news
        return []
    result.changed += index.note_folder(folder, None)
    if index.count(folder) != met:
        result.deleted += index.keep_only(folder, (name for name, _, _ in _files(full, [])))
    return inside


def _files(full: str, inside: list[str]) -> Iterator[tuple[str, int, int]]:
    """Yield `(name, size, mtime)` of the regular files of a folder; folders go into `inside`."""
    with os.scandir(full) as entries:
        for entry in entries:
            name = entry.name
            if name.startswith(".") or name.lower() in _LITTER:
                continue
            try:
                if entry.is_dir():
                    inside.append(name)
                    continue
                status = entry.stat()
            except OSError:  # a broken link: entered, so that parsing it makes a finding
                yield to_text(name), -1, 0
                continue
            if stat.S_ISREG(status.st_mode):
                yield to_text(name), status.st_size, status.st_mtime_ns


def _compare(index: Index, folder: int, files: list[tuple[str, int, int]], result: Walked) -> None:
    known = index.known(folder, [name for name, _, _ in files])
    changed = [one for one in files if known.get(one[0]) != (one[1], one[2])]
    if changed:
        index.expect(folder, changed)
    result.files += len(files)
    result.changed += len(changed)


def _unlisted(message: str) -> str:
    one: Finding = finding("unreadable-file", message)
    return parsing.packed(one)
