# SPDX-License-Identifier: Apache-2.0
"""The verb `models`: the networks by name and cost."""

from __future__ import annotations

from typing import Annotated

import typer

from vesalius.cli import terminal
from vesalius.cli.options import AsJson


def models(
    side: Annotated[int, typer.Option(help="Pixels of a side of the input.")] = 224,
    volume: Annotated[bool, typer.Option("--volume", help="Of cubes instead of images.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the networks with their parameters and multiply-adds for one input."""
    from vesalius.flows.models import models as flow

    rows = flow(side=side, volume=volume)
    if as_json:
        terminal.say_json(rows)
        return
    terminal.say_table(
        ["network", "parameters", "multiply-adds", "pretrained"],
        [
            (r["name"], f"{r['parameters'] / 1e6:.2f} M", f"{r['multiply_adds'] / 1e9:.3f} G",
             "imagenet" if r["pretrained"] else "")
            for r in rows
        ],
    )  # fmt: skip
