# SPDX-License-Identifier: Apache-2.0
"""The verb `export`: a run becomes one file for other software."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vesalius.cli import terminal


def export(
    run: Annotated[Path, typer.Argument(help="Run folder of `train classify`.")],
    out: Annotated[Path, typer.Option(help="The file, ending in .onnx.")],
) -> None:
    """Write a classifier as one ONNX file, checked to give the run's answers."""
    from vesalius.flows.export import export as flow

    terminal.say(f"written: {flow(run, out=out)}")
