# SPDX-License-Identifier: Apache-2.0
"""The verb `plan`: what training would do and take, before it does."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vesalius.cli import planning_options as options
from vesalius.cli import terminal
from vesalius.cli.options import AsJson, Cohort


def plan(
    task: options.Task,
    cohort: Cohort,
    target: options.Target = None,
    target_kind: options.TargetKind = "auto",
    case: options.Case = "auto",
    minutes: options.Minutes = None,
    steps: options.Steps = None,
    folds: options.Folds = 1,
    out: Annotated[Path | None, typer.Option(help="File for the plan, to edit and train.")] = None,
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
    as_json: AsJson = False,
) -> None:
    """Print what `train` with the same options would do, how long, and what it takes."""
    from vesalius.flows.plan import plan as flow

    result = flow(
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
    )
    if as_json:
        terminal.say_json(result.to_json())
        return
    for line in result.lines():
        terminal.say(line)
    if out is not None:
        terminal.say(f"plan: {out} — next: vesalius train {task.value} {cohort} --plan {out}")
