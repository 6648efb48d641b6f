# SPDX-License-Identifier: Apache-2.0
"""The peak of this process's memory while something is done, as the Linux kernel accounts it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Self

_STATUS = Path("/proc/self/status")
_BEGIN_PEAK = Path("/proc/self/clear_refs")  # writing 5: the peak begins again at what is held now


class PeakMemory:
    """Measures `peak` within `with`: the most bytes of memory that the process held.

    The kernel's account of the process's peak begins again.
    """

    peak: int

    def __enter__(self) -> Self:
        _BEGIN_PEAK.write_text("5")
        return self

    def __exit__(self, *_: object) -> None:
        self.peak = _of_status("VmHWM")


def held_memory() -> int:
    """Return the bytes of memory that the process holds now."""
    return _of_status("VmRSS")


def _of_status(name: str) -> int:
    """Return a line of the kernel's account of this process, in bytes."""
    found = re.search(name + r":\s+(\d+) kB", _STATUS.read_text())
    if found is None:
        raise OSError(f"{_STATUS} does not state {name}")
    return int(found[1]) * 1024
