# SPDX-License-Identifier: Apache-2.0
"""The verb `promote`: a run becomes the active one of a server's routing rule."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vesalius.cli import terminal
from vesalius.cli.options import AsJson


def promote(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    state: Annotated[Path, typer.Option(help="Folder of a server's state.")],
    rule: Annotated[str, typer.Option(help="Routing rule, where several could be meant.")] = "",
    reason: Annotated[str, typer.Option(help="Why; goes into the audit log.")] = "",
    golden: Annotated[
        list[Path] | None,
        typer.Option(help="Exam that becomes a golden case, without identity; may be repeated."),
    ] = None,
    shadow: Annotated[
        bool, typer.Option("--shadow", help="Look on beside the active run; answers are compared.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make a run the active one, once it has reproduced its golden cases."""
    from vesalius.operation.promote import promote as operate

    found = operate(
        run, state=state, rule=rule, reason=reason, golden=golden or [], shadow=shadow
    )  # fmt: skip
    if as_json:
        terminal.say_json(found.to_json())
        return
    for line in found.lines():
        terminal.say(line)
