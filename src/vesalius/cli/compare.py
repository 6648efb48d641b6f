# SPDX-License-Identifier: Apache-2.0
"""The verb `compare`: two runs on the same cases."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vesalius.cli import terminal
from vesalius.cli.options import AsJson


def compare(
    run_a: Annotated[Path, typer.Argument(help="Run folder A.")],
    run_b: Annotated[Path, typer.Argument(help="Run folder B.")],
    split: Annotated[
        str, typer.Option(help="Subset, or cohort-…, that both were scored on.")
    ] = "test",
    out: Annotated[Path | None, typer.Option(help="Folder for JSON and HTML.")] = None,
    as_json: AsJson = False,
) -> None:
    """Compare two evaluated runs on the same cases: differences with intervals, P(B better)."""
    from vesalius.flows.compare import compare as flow

    result = flow(run_a, run_b, split=split, out=out)
    if as_json:
        terminal.say_json(result.to_json())
        return
    for line in result.lines():
        terminal.say(line)
