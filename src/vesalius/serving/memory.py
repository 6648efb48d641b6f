# SPDX-License-Identifier: Apache-2.0
"""What one worker may take in memory: set once by the server, kept by each of its workers.

The bound is the kernel's, on private memory (RLIMIT_DATA, which counts anonymous mappings since
Linux 4.7): a study that needs more ends its job with a reason, and neither the machine nor the
other workers suffer. A segmenter's sums get half of it and are tiled to fit.
"""

from __future__ import annotations

import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vesalius.errors import BudgetError, UsageError
from vesalius.serving.state import State

LEAST = 256 << 20
_SETTING = "worker_memory"
_DATA = re.compile(r"^VmData:\s+(\d+) kB$", re.MULTILINE)
_REFUSED = re.compile(r"not enough memory|can't allocate memory|out of memory", re.IGNORECASE)


def check(budget: int | None) -> int | None:
    """Return a budget in bytes that can be kept; None for none.

    Raises:
        UsageError: too little for any run.
    """
    if budget is not None and budget < LEAST:
        raise UsageError(f"--worker-memory must be {LEAST >> 20} MiB at least")
    return budget


def remember(state: State, budget: int | None) -> None:
    """Write the budget down, for the workers."""
    with state.transaction() as connection:
        connection.execute(
            "INSERT OR REPLACE INTO meta VALUES (?, ?)", (_SETTING, str(budget or 0))
        )


def chosen(state: State) -> int | None:
    """Return the budget of a worker in bytes, or None."""
    row = state.connection().execute(
        "SELECT value FROM meta WHERE name = ?", (_SETTING,)
    ).fetchone()  # fmt: skip
    return int(row[0]) or None if row else None


def bound(budget: int) -> None:
    """Let this process take `budget` bytes more than it has now, and no more."""
    found = _DATA.search(Path("/proc/self/status").read_text(encoding="ascii", errors="replace"))
    held = int(found[1]) << 10 if found else 0
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = held + budget
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (most, hard))


@contextmanager
def within(budget: int | None) -> Iterator[None]:
    """Turn what a library raises where memory ends into `BudgetError`."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not _REFUSED.search(str(error)):
            raise
        of = f"the {budget >> 20:,} MiB of a worker (--worker-memory)" if budget else "there is"
        raise BudgetError(f"the study needs more memory than {of}") from error
