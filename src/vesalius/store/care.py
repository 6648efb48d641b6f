# SPDX-License-Identifier: Apache-2.0
"""How an archive in a folder is: what is in no index, what has grown, and what to do about it."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

from vesalius.store.lance_table import LanceTable
from vesalius.store.protocol import Condition
from vesalius.store.snapshot import Snapshot

_UNINDEXED = 0.1  # share of entries above which an alarm is raised
_GROWN = 3.0  # bytes on disk over bytes of the newest version, likewise
_SMALL = 1 << 24  # bytes that are never too many
_VERSIONS = 500


def condition(
    now: Snapshot, table: LanceTable, folder: Path, *, indexed_from: int, kept: timedelta
) -> Condition:
    """Return how an archive is.

    Args:
        now: its rows.
        table: its table.
        folder: that it is in.
        indexed_from: number of entries from which an index serves.
        kept: how long a compaction keeps earlier versions.
    """
    loose, count = now.loose(), len(now)
    unindexed = loose if count >= indexed_from else 0
    paths = (os.path.join(root, name) for root, _, names in os.walk(folder) for name in names)
    size = sum(map(_size, paths))
    versions, live = len(table.versions()), table.live_bytes()
    alarms = []
    if unindexed > _UNINDEXED * count:
        alarms.append(
            f"{unindexed} of {count} entries are in no index and are compared one by one: compact "
            "the archive"
        )
    if size > _GROWN * live + _SMALL:
        alarms.append(
            f"the folder takes {size >> 20} MiB, of which the newest version needs {live >> 20}: "
            f"compact the archive (earlier versions stay for {kept.days} days)"
        )
    if versions > _VERSIONS:
        alarms.append(f"{versions} versions are kept: write more entries at once, and compact")
    return Condition(count, unindexed, size, versions, loose == count, tuple(alarms))


def _size(path: str) -> int:
    """Return the bytes of a file, none if it was dropped meanwhile."""
    try:
        return os.path.getsize(path)
    except FileNotFoundError:
        return 0
