# SPDX-License-Identifier: Apache-2.0
"""What a person sees: progress with an ETA on stderr; tables, or plain lines in a pipe."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_REFRESH_SECONDS = 0.2
_PLAIN_SECONDS = 10.0


class Progress:
    """One line of progress per stage; call it as `progress(stage, done, total)`.

    On a terminal the line is rewritten a few times a second; piped, a plain line appears every
    ten seconds and at the end of each stage. `total` may be None while it is not known.
    """

    def __init__(self) -> None:
        self._stage = ""
        self._started = 0.0
        self._shown = 0.0
        self._live = sys.stderr.isatty()
        self._width = 0

    def __call__(self, stage: str, done: int, total: int | None = None) -> None:
        """Show that `done` of `total` units of `stage` are finished."""
        now = time.monotonic()
        if stage != self._stage:
            self.close()
            self._stage, self._started, self._shown = stage, now, 0.0
        finished = total is not None and done >= total
        pause = _REFRESH_SECONDS if self._live else _PLAIN_SECONDS
        if now - self._shown < pause and not finished:
            return
        if finished and self._shown == float("inf"):
            return
        self._write(self._line(done, total, now - self._started), end=finished)
        self._shown = float("inf") if finished else now

    def close(self) -> None:
        """End the line in progress."""
        if self._live and self._width and self._shown != float("inf"):
            sys.stderr.write("\n")
        self._width = 0

    def _line(self, done: int, total: int | None, elapsed: float) -> str:
        rate = f", {done / elapsed:,.0f}/s" if elapsed > 1 and done > elapsed else ""
        if total is None:
            return f"{self._stage}: {done:,}{rate}"
        if done >= total:
            return f"{self._stage}: {done:,} of {total:,} in {clock(elapsed)}{rate}"
        left = f", {clock(elapsed / done * (total - done))} left" if done and elapsed > 1 else ""
        return f"{self._stage}: {done:,} of {total:,}{rate}{left}"

    def _write(self, line: str, *, end: bool) -> None:
        if self._live:
            sys.stderr.write("\r" + line.ljust(self._width) + ("\n" if end else ""))
            self._width = 0 if end else len(line)
        else:
            sys.stderr.write(line + "\n")
        sys.stderr.flush()


def clock(seconds: float) -> str:
    """Return a duration as `4.2 s`, `3:05` (minutes) or `2:03:05` (hours)."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def say(line: str = "") -> None:
    """Print one line of outcome on stdout."""
    sys.stdout.write(line + "\n")


def say_json(value: Any) -> None:
    """Print a machine-readable outcome on stdout."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")


def say_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str = "") -> None:
    """Print rows: a ruled table on a terminal, tab-separated lines in a pipe."""
    cells = [[str(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        for row in [list(columns), *cells]:
            say("\t".join(cell.replace("\t", " ").replace("\n", " ") for cell in row))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns, title=title or None, title_justify="left")
    for row in cells:
        table.add_row(*row)
    Console().print(table)


def say_pairs(pairs: Mapping[str, object]) -> None:
    """Print `name: value` lines, aligned."""
    width = max(map(len, pairs), default=0) + 1
    for name, value in pairs.items():
        say(f"{name + ':':<{width}} {value}")


def byte_count(text: str) -> int:
    """Parse `4GB`, `512MB`, `800 MiB` or a plain number into bytes."""
    from vesalius.errors import UsageError

    units = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 1 << 10, "MIB": 1 << 20}
    units["GIB"] = 1 << 30
    body = text.strip().upper()
    digits = body.rstrip("BIKMG ").strip()
    unit = body[len(digits) :].strip()
    try:
        return int(float(digits) * units[unit])
    except (KeyError, ValueError):
        raise UsageError(
            f"a size is a number with KB, MB, GB, KiB, MiB or GiB, for example 4GB; got {text!r}"
        ) from None


def seconds(text: str) -> float:
    """Parse `50ms`, `0.2 s` or a plain number of seconds."""
    from vesalius.errors import UsageError

    body = text.strip().lower()
    factor = 1e-3 if body.endswith("ms") else 1.0
    try:
        return factor * float(body.removesuffix("ms").removesuffix("s"))
    except ValueError:
        raise UsageError(
            f"a time is a number with ms or s, for example 50ms; got {text!r}"
        ) from None
