# SPDX-License-Identifier: Apache-2.0
"""A search while it runs: a live table of its best trials, or in a pipe a line for each trial."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Self

from vesalius.cli import terminal

if TYPE_CHECKING:
    from rich.table import Table

    from vesalius.flows.searching.result import SearchResult
    from vesalius.tuning.trial import Trial

_ROWS = 10


class LiveTable:
    """Shows a search on stderr; give `show` to `vesalius.search` as `say`."""

    def __init__(self) -> None:
        self._live: Any = None
        self._ended: set[int] | None = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(stderr=True), refresh_per_second=2)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, search: SearchResult) -> None:
        """Show a search as it stands."""
        if self._live is not None:
            self._live.update(_table(search))
            return
        ended = {trial.number for trial in search.trials if trial.state != "running"}
        if self._ended is None:  # those of earlier sessions were told of before
            self._ended = ended if len(ended) > 1 else set()
        for number in sorted(ended - self._ended):
            sys.stderr.write(_line(search, search.trials[number]) + "\n")
        sys.stderr.flush()
        self._ended |= ended


def left(search: SearchResult) -> str:
    """Return the time that a search has left."""
    return terminal.clock(max(0.0, 60 * search.setting["minutes"] - search.seconds))


def _line(search: SearchResult, trial: Trial) -> str:
    from vesalius.flows.searching.result import described, shown

    said = shown(trial, search.objectives) if trial.done else f"{trial.state}: {trial.why}"
    return f"trial {trial.number} ({described(trial)}): {said}; {left(search)} left"


def _table(search: SearchResult) -> Table:
    from rich.table import Table

    from vesalius.flows.searching.result import described, value_shown

    front = {trial.number for trial in search.front}
    running = [trial for trial in search.trials if trial.state == "running"]
    title = f"{len(search.trials) - len(running)} trials ended, {left(search)} left"
    names = [o.name for o in search.objectives]
    table = Table("trial", *names, "steps", "parameters", title=title, title_justify="left")
    for trial in search.ranked[:_ROWS]:
        values = [value_shown(o, trial.values[o.name]) for o in search.objectives]
        mark = "*" if trial.number in front else ""
        steps = search.setting["steps"][trial.rung]
        table.add_row(f"{trial.number}{mark}", *values, str(steps), described(trial))
    for trial in running:
        steps = search.setting["steps"][trial.rung]
        blank = [""] * len(names)
        table.add_row(f"{trial.number} …", *blank, str(steps), described(trial), style="dim")
    return table
