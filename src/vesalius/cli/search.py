# SPDX-License-Identifier: Apache-2.0
"""The verb `search`: many plans tried, the best kept, a live table meanwhile."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vesalius.cli import planning_options as options
from vesalius.cli import terminal
from vesalius.cli.options import AsJson
from vesalius.cli.search_table import LiveTable

if TYPE_CHECKING:
    from vesalius.flows.searching.result import SearchResult


def search(
    task: Annotated[options.TaskName | None, typer.Argument(help="What to learn.")] = None,
    cohort: Annotated[Path | None, typer.Argument(help="Cohort folder that `scan` made.")] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Wall minutes for everything; 60 where none are given.")
    ] = None,
    target: options.Target = None,
    target_kind: options.TargetKind = "auto",
    case: options.Case = "auto",
    steps: Annotated[int | None, typer.Option(help="Steps of a network trained in full.")] = None,
    max_latency: Annotated[
        str, typer.Option(help="What an answer for one case may take, e.g. 50ms.")
    ] = "",
    device: Annotated[str, typer.Option(help="On which latency is measured: auto, cpu.")] = "auto",
    max_memory: Annotated[
        str, typer.Option(help="What a process that answers may take, e.g. 2GB.")
    ] = "",
    max_size: Annotated[str, typer.Option(help="What a model may take on disk, e.g. 20MB.")] = "",
    disk: Annotated[str, typer.Option(help="Disk for the weights of all trials, e.g. 10GB.")] = "",
    on: Annotated[str, typer.Option(help="On what trials run: local processes, or ray.")] = "local",
    address: Annotated[
        str | None, typer.Option(help="HOST:PORT of the Ray cluster's head; default: start one.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(help="Trials at once; here 1 and the cores shared out, on ray all that fit."),
    ] = None,
    trial_cpus: Annotated[int, typer.Option(help="Cores of each trial, on ray.")] = 1,
    trial_gpus: Annotated[float, typer.Option(help="GPUs of each trial, on ray.")] = 0.0,
    journal: Annotated[
        str | None,
        typer.Option(help="postgresql://USER@HOST/DATABASE for the journal; default a file."),
    ] = None,
    artifacts: Annotated[
        str | None,
        typer.Option(help="s3://BUCKET/PREFIX for runs, where machines share no folder."),
    ] = None,
    endpoint: Annotated[
        str | None, typer.Option(help="Address of the S3 API; default AWS.")
    ] = None,
    trials: Annotated[int | None, typer.Option(help="At most so many trials.")] = None,
    space: Annotated[
        Path | None, typer.Option(help="File of the parameters, edited from a search's space.json.")
    ] = None,
    tuner: Annotated[str, typer.Option(help="ours, or a baseline: random, tpe, asha.")] = "ours",
    start: Annotated[
        Path | None, typer.Option("--from", help="Earlier search whose best points to try early.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the search; default searches/TASK-HASH.")
    ] = None,
    resume: Annotated[Path | None, typer.Option(help="Search to go on with.")] = None,
    where: options.Where = None,
    split: options.SplitFile = None,
    ungrouped_split: options.UngroupedSplit = False,
    seed: options.Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Search for the best trade of quality and cost; the same command resumes what was stopped."""
    from vesalius.flows.search import search as flow

    with LiveTable() as table:
        result = flow(
            None if task is None else task.value,
            cohort,
            minutes=minutes,
            target=target,
            target_kind=target_kind,
            case=case,
            steps=steps,
            max_latency=terminal.seconds(max_latency) if max_latency else None,
            device=device,
            max_memory=terminal.byte_count(max_memory) if max_memory else None,
            max_size=terminal.byte_count(max_size) if max_size else None,
            disk=terminal.byte_count(disk) if disk else None,
            on=on,
            address=address,
            workers=workers,
            trial_cpus=trial_cpus,
            trial_gpus=trial_gpus,
            journal=journal,
            artifacts=artifacts,
            endpoint=endpoint,
            trials=trials,
            space=space,
            tuner=tuner,
            start=start,
            out=out,
            resume=resume,
            where=where,
            split=split,
            ungrouped_split=ungrouped_split,
            seed=seed,
            say=table.show,
            command=shlex.join(["vesalius", *sys.argv[1:]]),
        )
    if as_json:
        terminal.say_json(result.to_json())
        return
    _say(result)


def _say(result: SearchResult) -> None:
    for line in result.lines():
        terminal.say(line)
    terminal.say(f"search: {result.path} — next: vesalius leaderboard {result.path}")
    terminal.say(f"report: {result.report}")
