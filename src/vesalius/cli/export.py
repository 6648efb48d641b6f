# SPDX-License-Identifier: Apache-2.0
"""The verb `export`: a run for production, without PyTorch's network."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from vesalius.cli import terminal


class Engine(StrEnum):
    """What computes the network."""

    onnx = "onnx"
    openvino = "openvino"


def export(
    run: Annotated[Path, typer.Argument(help="Run folder of `train`.")],
    out: Annotated[Path, typer.Option(help="New folder (segment), .onnx or .xml file (classify).")],
    to: Annotated[Engine, typer.Option(help="What will compute the network.")] = Engine.onnx,
    int8: Annotated[
        bool, typer.Option("--int8", help="In 8-bit integers, if the Dice score holds (segment).")
    ] = False,
    cohort: Annotated[
        Path | None,
        typer.Option(help="That the run was trained on: proves the export, calibrates int8."),
    ] = None,
) -> None:
    """Write a run for ONNX Runtime or OpenVINO, checked to give the run's answers."""
    from vesalius.flows.export import export as flow

    progress = terminal.Progress()
    path = flow(run, out=out, to=to.value, int8=int8, cohort=cohort, progress=progress)
    progress.close()
    for line in _facts(path):
        terminal.say(line)
    terminal.say(f"written: {path}")


def _facts(path: Path) -> list[str]:
    """Return what was measured of a segmenter's export."""
    from vesalius.files import read_json

    if not path.is_dir():
        return []
    record = read_json(path / "export.json")
    proof, int8 = record["proof"], record.get("int8")
    lines = []
    if "images" in proof:
        lines.append(
            f"label maps of {proof['images']} validation images: {proof['equal_voxels']:.4%} of "
            "voxels equal to the run's"
        )
    if int8 is not None:
        lines.append(
            f"mean Dice of {int8['images']} validation images: {int8['dice']['int8']:.4f} in 8 "
            f"bits, {int8['dice']['fp32']:.4f} in 32"
        )
    return lines
