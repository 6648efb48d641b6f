# SPDX-License-Identifier: Apache-2.0
"""Options that bear on the plan of a run: of `plan` and of `train`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class TaskName(StrEnum):
    """What can be learned."""

    classify = "classify"
    segment = "segment"
    detect = "detect"
    retrieve = "retrieve"


Task = Annotated[TaskName, typer.Argument(help="What to learn.")]
Target = Annotated[
    str | None,
    typer.Option(
        help="Label to learn (classify), or to share (retrieve); several joined by commas."
    ),
]
TargetKind = Annotated[
    str,
    typer.Option(
        help="auto, binary, multiclass, multilabel, ordinal (ordinal:low<mid<high), regression."
    ),
]
Case = Annotated[
    str, typer.Option(help="What one label applies to: auto, patient, study, series, image.")
]
Minutes = Annotated[
    float | None, typer.Option(help="Wall minutes for everything; 10 without --steps.")
]
Steps = Annotated[int | None, typer.Option(help="Exact number of steps, instead of minutes.")]
Folds = Annotated[
    int,
    typer.Option(help="Networks, each without one part of the cases; their mean answers."),
]
Model = Annotated[
    str, typer.Option(help="auto (several, mixed), or one network: see `vesalius models`.")
]
Operating = Annotated[
    str,
    typer.Option(help="Threshold for sensitivity=0.95, specificity=0.9 or cost=10:1 (binary)."),
]
Encoder = Annotated[
    Path | None,
    typer.Option(help="Encoder of yours (.safetensors, .onnx), used frozen (classify)."),
]
Start = Annotated[
    Path | None, typer.Option("--from", help="Run whose network's weights to begin with.")
]
Normalize = Annotated[
    str, typer.Option(help="Intensity method, see `vesalius normalize --list`, or auto.")
]
Where = Annotated[str | None, typer.Option(help="SQL filter on the cohort's rows.")]
SplitFile = Annotated[Path | None, typer.Option(help="Split file to use.")]
UngroupedSplit = Annotated[bool, typer.Option(help="Allow one patient on both sides of the split.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]
Labels = Annotated[
    str,
    typer.Option(help="Structures to learn: liver,spleen or whole=core+edge (segment)."),
]
Ignore = Annotated[
    str, typer.Option(help="Labels of the masks whose voxels are to count nowhere (segment).")
]
Pairs = Annotated[
    str,
    typer.Option(
        help="What belongs together (retrieve): same-label, captions, same-study; comma-joined."
    ),
]
Memory = Annotated[
    str, typer.Option(help="What training may take, e.g. 6GB: bounds patch and batch (segment).")
]
