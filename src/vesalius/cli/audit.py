# SPDX-License-Identifier: Apache-2.0
"""The verb `audit`: who did what on a server, and whether the log of it is whole."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vesalius.cli import terminal
from vesalius.cli.exit_codes import FOUND_ERRORS
from vesalius.cli.options import AsJson


def audit(
    state: Annotated[Path, typer.Option(help="Folder of a server's state.")],
    study: Annotated[str, typer.Option(help="Study Instance UID; only what was done to it.")] = "",
    last: Annotated[int, typer.Option(min=1, help="How many lines, the latest.")] = 50,
    as_json: AsJson = False,
) -> None:
    """Show a server's audit log and check its chain of hashes."""
    from vesalius.serving.audit import audit as look

    found = look(state, study=study, last=last)
    if as_json:
        terminal.say_json(found.to_json())
    else:
        shown = ("number", "time", "actor", "action")
        rows = [[*(one.get(name, "") for name in shown), _rest(one, shown)] for one in found.lines]
        terminal.say_table([*shown, "details"], rows)
        if found.verdict.broken:
            terminal.say(f"BROKEN at line {found.verdict.broken}: {found.verdict.why}")
        else:
            terminal.say(f"the log is whole: {found.verdict.lines:,} lines")
    if found.verdict.broken:
        raise typer.Exit(FOUND_ERRORS)


def _rest(line: dict[str, object], shown: tuple[str, ...]) -> str:
    """Return what else a line says, without what chains it."""
    hidden = {*shown, "before", "hash"}
    return ", ".join(f"{name} {value}" for name, value in line.items() if name not in hidden)
