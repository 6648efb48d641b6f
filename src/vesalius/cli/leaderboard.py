# SPDX-License-Identifier: Apache-2.0
"""The verb `leaderboard`: the trials of a search, best first."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vesalius.cli import terminal
from vesalius.cli.options import AsJson

if TYPE_CHECKING:
    from vesalius.flows.searching.result import SearchResult


def leaderboard(
    search: Annotated[Path, typer.Argument(help="Folder of a search.")],
    as_json: AsJson = False,
) -> None:
    """List the trials of a search, best first, those on the front marked; it may be running."""
    from vesalius.flows.leaderboard import leaderboard as flow

    result = flow(search)
    if as_json:
        terminal.say_json(result.to_json())
        return
    say_trials(result)
    for line in result.lines():
        terminal.say(line)


def say_trials(result: SearchResult) -> None:
    """Print the trials that are done, best first."""
    from vesalius.flows.searching.result import described, value_shown

    front = {trial.number for trial in result.front}
    terminal.say_table(
        ["trial", "", *(o.name for o in result.objectives), "steps", "seconds", "parameters"],
        [
            (
                trial.number,
                "*" if trial.number in front else "",
                *(value_shown(o, trial.values[o.name]) for o in result.objectives),
                result.setting["steps"][trial.rung],
                f"{trial.seconds:.0f}",
                described(trial),
            )
            for trial in result.ranked
        ],
    )
