# SPDX-License-Identifier: Apache-2.0
"""The verb `fetch`: a public data set is downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vesalius.cli import terminal


def fetch(
    name: Annotated[str, typer.Argument(help="For example medmnist:breastmnist.")],
    out: Annotated[Path, typer.Option(help="Folder for the file.")] = Path(),
) -> None:
    """Download a public data set from its official address and check it."""
    from vesalius.flows.fetch import fetch as run

    terminal.say(str(run(name, out=out)))
