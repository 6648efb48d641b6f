# SPDX-License-Identifier: Apache-2.0
"""A clock that all processes of a server share and that never goes back.

Leases and quiet times compare moments that lie in different processes, and sometimes before a
restart. The wall clock can be set back by hours; the time since the machine's boot cannot, but
starts anew with each. So each boot is given an offset once, in the state: its seconds go on after
the last that was written, whatever the wall clock says.
"""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_LAST = "SELECT max(coalesce((SELECT max(last_seen) FROM studies), 0),"
_LAST += " coalesce((SELECT max(lease_until) FROM jobs), 0))"


class Clock:
    """Seconds, about those of the Unix epoch; ask with `now()`."""

    def __init__(self, connection: sqlite3.Connection):
        """Read this boot's offset, or settle it, within a transaction of its own."""
        boot = _boot_id()
        connection.execute("BEGIN IMMEDIATE")
        try:
            row = connection.execute("SELECT value FROM meta WHERE name = 'boot'").fetchone()
            held, offset = row[0].split(" ") if row else ("", "0")
            if held != boot:
                (last,) = connection.execute(_LAST).fetchone()
                offset = repr(max(time.time(), last) - since_boot())
                connection.execute(
                    "INSERT OR REPLACE INTO meta VALUES ('boot', ?)", (f"{boot} {offset}",)
                )
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        self._offset = float(offset)

    def now(self) -> float:
        """Return the seconds; a later call never returns less, in any process."""
        return self._offset + since_boot()


def since_boot() -> float:
    """Return seconds since the machine started, sleep included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _boot_id() -> str:
    return _BOOT_ID.read_text(encoding="ascii").strip()
