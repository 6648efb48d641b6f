# SPDX-License-Identifier: Apache-2.0
"""The verb `status`: what a server holds and waits for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vesalius.cli import terminal
from vesalius.cli.exit_codes import FOUND_ERRORS
from vesalius.cli.options import AsJson


def status(
    state: Annotated[Path, typer.Option(help="Folder of a server's state.")],
    verify: Annotated[
        bool, typer.Option("--verify", help="Read every file and compare it with its hash.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Tell what a server holds, what waits, and what went wrong."""
    from vesalius.serving.status import status as look

    found = look(state, verify=verify)
    if as_json:
        terminal.say_json(found.to_json())
    else:
        for line in found.lines():
            terminal.say(line)
    if not found.ok:
        raise typer.Exit(FOUND_ERRORS)
