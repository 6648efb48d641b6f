# SPDX-License-Identifier: Apache-2.0
"""The verb `train`: a cohort becomes a run."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from vesalius.cli import terminal
from vesalius.cli.options import Cohort
from vesalius.cli.run_outcome import say_report, say_scores


class TaskName(StrEnum):
    """What `train` can learn."""

    classify = "classify"
    segment = "segment"
    detect = "detect"


def train(
    task: Annotated[TaskName, typer.Argument(help="What to learn.")],
    cohort: Cohort,
    target: Annotated[
        str | None,
        typer.Option(help="Label to learn (classify); several yes/no ones joined by commas."),
    ] = None,
    target_kind: Annotated[
        str,
        typer.Option(
            help="auto, binary, multiclass, multilabel, ordinal (ordinal:low<mid<high), regression."
        ),
    ] = "auto",
    case: Annotated[
        str, typer.Option(help="What one label applies to: auto, patient, study, series, image.")
    ] = "auto",
    minutes: Annotated[float, typer.Option(help="Wall minutes for everything.")] = 10.0,
    steps: Annotated[
        int | None, typer.Option(help="Exact number of steps, instead of minutes.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; default runs/TASK-HASH.")] = None,
    model: Annotated[
        str,
        typer.Option(help="auto (several, mixed), or one network: see `vesalius models`."),
    ] = "auto",
    operating: Annotated[
        str,
        typer.Option(help="Threshold for sensitivity=0.95, specificity=0.9 or cost=10:1 (binary)."),
    ] = "",
    encoder: Annotated[
        Path | None,
        typer.Option(help="Encoder of yours (.safetensors, .onnx), used frozen (classify)."),
    ] = None,
    start: Annotated[
        Path | None, typer.Option("--from", help="Run whose network's weights to begin with.")
    ] = None,
    normalize: Annotated[
        str, typer.Option(help="Intensity method, see `vesalius normalize --list`, or auto.")
    ] = "auto",
    where: Annotated[str | None, typer.Option(help="SQL filter on the cohort's rows.")] = None,
    split: Annotated[Path | None, typer.Option(help="Split file to use.")] = None,
    ungrouped_split: Annotated[
        bool, typer.Option(help="Allow one patient on both sides of the split.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
) -> None:
    """Train a model within the minutes given; the same command resumes after an interruption."""
    from vesalius.flows.train import train as run

    progress = terminal.Progress()
    result = run(
        task.value,
        cohort,
        target=target,
        target_kind=target_kind,
        case=case,
        minutes=minutes,
        steps=steps,
        out=out,
        model=model,
        operating=operating,
        encoder=encoder,
        start=start,
        normalize=normalize,
        where=where,
        split=split,
        ungrouped_split=ungrouped_split,
        seed=seed,
        progress=progress,
        command=_command(),
    )
    progress.close()
    for line in result.audit():
        terminal.say(line)
    say_scores(result.metrics, "val")
    terminal.say(f"run:    {result.path}")
    say_report(result.path)


def _command() -> str:
    import shlex

    return shlex.join(["vesalius", *sys.argv[1:]])
