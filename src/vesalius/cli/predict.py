# SPDX-License-Identifier: Apache-2.0
"""The verb `predict`: a run is applied to an exam."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vesalius.cli import terminal
from vesalius.cli.options import AsJson, MaxMemory, image_limits


def predict(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    exam: Annotated[Path, typer.Argument(help="File, folder or zip.")],
    out: Annotated[Path, typer.Option(help="Folder for the results.")],
    format: Annotated[  # noqa: A002 - the option's name
        str,
        typer.Option(
            help="auto; dicom-seg, dicom-labelmap, rtstruct, nifti, nrrd, minc (segment); "
            "json, dicom-sr (classify). Beside it, joined by commas: key-images, fhir; of label "
            "maps gsps, dicom-sr too."
        ),
    ] = "auto",
    modality: Annotated[
        str, typer.Option(help="DICOM's code, for images that do not state theirs (classify).")
    ] = "",
    explain: Annotated[
        bool, typer.Option("--explain", help="Also write why: each image's weight, heat maps.")
    ] = False,
    memory: Annotated[
        str, typer.Option(help="What a segmenter's sums may take, e.g. 2GB; default a quarter.")
    ] = "",
    mirror: Annotated[
        bool, typer.Option("--mirror", help="Answer by the mean over mirror images (segment).")
    ] = False,
    keep_names: Annotated[
        bool,
        typer.Option("--keep-names", help="Name label maps after the exam's files (segment)."),
    ] = False,
    channels: Annotated[
        str, typer.Option(help="Which of the run's channels the images have: T1,FLAIR (segment).")
    ] = "",
    everywhere: Annotated[
        bool,
        typer.Option("--everywhere", help="Leave no window out where nothing is expected."),
    ] = False,
    max_image_memory: MaxMemory = "",
    as_json: AsJson = False,
) -> None:
    """Apply a run to a new exam; label maps come back on the source's own grid."""
    from vesalius.flows.predict import predict as flow

    result = flow(
        run,
        exam,
        out=out,
        format=format,
        modality=modality,
        explain=explain,
        limits=image_limits(max_image_memory),
        memory=terminal.byte_count(memory) if memory else None,
        mirror=mirror,
        keep_names=keep_names,
        channels=channels,
        everywhere=everywhere,
        say=None if as_json else terminal.say,
    )
    if as_json:
        terminal.say_json(result.to_json())
        return
    for line in result.lines():
        terminal.say(line)
