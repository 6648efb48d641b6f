# SPDX-License-Identifier: Apache-2.0
"""The verb `scan`: a folder of images becomes a cohort."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vesalius.cli import terminal
from vesalius.cli.options import AsJson, MaxMemory, image_limits


def scan(
    data: Annotated[Path, typer.Argument(help="Folder of images, any formats, any layout.")],
    out: Annotated[Path, typer.Option(help="Cohort folder to create or bring up to date.")],
    labels: Annotated[Path | None, typer.Option(help="CSV/TSV/Parquet/JSON to join.")] = None,
    headers_only: Annotated[bool, typer.Option(help="Do not read pixels.")] = False,
    workers: Annotated[int | None, typer.Option(help="Processes; default one per core.")] = None,
    license: Annotated[str, typer.Option(help="License of the data.")] = "",  # noqa: A002
    pseudonym_key: Annotated[Path | None, typer.Option(help="Key shared with others.")] = None,
    patient_pattern: Annotated[
        str | None, typer.Option(help="Regular expression; group 1 is the patient in a path.")
    ] = None,
    max_image_memory: MaxMemory = "",
    as_json: AsJson = False,
) -> None:
    """Turn a folder of images into a cohort; only new and changed files are read."""
    from vesalius.flows.scan import scan as run

    progress = terminal.Progress()
    result = run(
        data,
        out=out,
        labels=labels,
        pixels=not headers_only,
        workers=workers,
        license=license,
        pseudonym_key=pseudonym_key,
        patient_pattern=patient_pattern,
        limits=image_limits(max_image_memory),
        progress=progress,
    )
    progress.close()
    if as_json:
        terminal.say_json(result.to_json())
        return
    for line in result.lines():
        terminal.say(line)
    terminal.say(f"cohort: {out} — next: vesalius check {out}")
