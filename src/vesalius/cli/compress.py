# SPDX-License-Identifier: Apache-2.0
"""The verb `compress`: a small network that answers as a run does, and what it costs."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from vesalius.cli import terminal
from vesalius.cli.options import AsJson, Cohort
from vesalius.cli.planning_options import Minutes, Seed, Steps


def compress(
    run: Annotated[Path, typer.Argument(help="Run folder of `train`, or folder of `search`.")],
    cohort: Cohort,
    minutes: Minutes = None,
    steps: Steps = None,
    max_latency: Annotated[
        str, typer.Option(help="What an answer for one case may take, e.g. 20ms.")
    ] = "",
    max_size: Annotated[str, typer.Option(help="What it may take on disk, e.g. 20MB.")] = "",
    to: Annotated[str, typer.Option(help="Export it, too: onnx, openvino.")] = "",
    int8: Annotated[
        bool, typer.Option("--int8", help="Export in 8-bit integers, if the score holds.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Run folder; default runs/TASK-HASH.")] = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Teach one small, fast network to answer as a run does; the same command resumes."""
    from vesalius.flows.compress import compress as flow

    progress = terminal.Progress()
    result = flow(
        run,
        cohort,
        minutes=minutes,
        steps=steps,
        max_latency=terminal.seconds(max_latency) if max_latency else None,
        max_size=terminal.byte_count(max_size) if max_size else None,
        to=to,
        int8=int8,
        out=out,
        seed=seed,
        progress=progress,
        command=shlex.join(["vesalius", *sys.argv[1:]]),
    )
    progress.close()
    if as_json:
        terminal.say_json(result.to_json())
        return
    for line in result.lines():
        terminal.say(line)
    terminal.say(f"run:    {result.path}")
    if result.exported is not None:
        terminal.say(f"export: {result.exported}")
    terminal.say(f"report: {result.report}")
