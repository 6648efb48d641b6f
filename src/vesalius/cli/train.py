# SPDX-License-Identifier: Apache-2.0
"""The verb `train`: a cohort becomes a run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from vesalius.cli import planning_options as options
from vesalius.cli import terminal
from vesalius.cli.options import Cohort
from vesalius.cli.run_outcome import say_report, say_scores


def train(
    task: options.Task,
    cohort: Cohort,
    target: options.Target = None,
    target_kind: options.TargetKind = "auto",
    case: options.Case = "auto",
    minutes: options.Minutes = None,
    steps: options.Steps = None,
    folds: options.Folds = 1,
    out: Annotated[Path | None, typer.Option(help="Run folder; default runs/TASK-HASH.")] = None,
    model: options.Model = "auto",
    operating: options.Operating = "",
    encoder: options.Encoder = None,
    start: options.Start = None,
    normalize: options.Normalize = "auto",
    where: options.Where = None,
    split: options.SplitFile = None,
    ungrouped_split: options.UngroupedSplit = False,
    seed: options.Seed = 0,
    labels: options.Labels = "",
    ignore: options.Ignore = "",
    memory: options.Memory = "",
    pairs: options.Pairs = "",
    plan: Annotated[
        Path | None, typer.Option(help="File of `vesalius plan`, edited or not, to train as it is.")
    ] = None,
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
        folds=folds,
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
        labels=labels,
        ignore=ignore,
        memory=terminal.byte_count(memory) if memory else None,
        pairs=pairs,
        plan=plan,
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
