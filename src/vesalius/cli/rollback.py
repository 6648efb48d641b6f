# SPDX-License-Identifier: Apache-2.0
"""The verb `rollback`: a server's routing rule gets the run back that it had before."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vesalius.cli import terminal
from vesalius.cli.options import AsJson


def rollback(
    state: Annotated[Path, typer.Option(help="Folder of a server's state.")],
    rule: Annotated[str, typer.Option(help="Routing rule, where several could be meant.")] = "",
    reason: Annotated[str, typer.Option(help="Why; goes into the audit log.")] = "",
    as_json: AsJson = False,
) -> None:
    """Go back to the run before, from the next study on."""
    from vesalius.operation.rollback import rollback as operate

    found = operate(state=state, rule=rule, reason=reason)
    if as_json:
        terminal.say_json(found.to_json())
        return
    for line in found.lines():
        terminal.say(line)
