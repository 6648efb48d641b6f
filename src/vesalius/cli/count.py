# SPDX-License-Identifier: Apache-2.0
"""The verb `count`: the objects of an exam, class by class."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vesalius.cli import terminal
from vesalius.cli.options import AsJson, MaxMemory, image_limits


def count(
    run: Annotated[Path, typer.Argument(help="Run folder of `train detect`.")],
    exam: Annotated[Path, typer.Argument(help="Image, DICOM folder or zip.")],
    out: Annotated[Path, typer.Option(help="Folder for the results.")],
    classify: Annotated[
        Path | None, typer.Option(help="Run of `train classify` that tells the kinds of --of.")
    ] = None,
    of: Annotated[str, typer.Option(help="Class whose objects are classified.")] = "",
    max_image_memory: MaxMemory = "",
    as_json: AsJson = False,
) -> None:
    """Find and count the objects of each class, with intervals; a white-cell differential."""
    from vesalius.flows.count import count as flow

    limits = image_limits(max_image_memory)
    result = flow(run, exam, out=out, classify=classify, of=of, limits=limits)
    if as_json:
        terminal.say_json(result.to_json())
        return
    for line in result.lines():
        terminal.say(line)
