# SPDX-License-Identifier: Apache-2.0
"""The verb `demo`: the whole job on simulated patients."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vesalius.cli import terminal


def demo(
    out: Annotated[Path, typer.Option(help="Folder for data, cohort, runs, report.")] = Path(
        "demo"
    ),
    patients: Annotated[int, typer.Option(help="Simulated patients.")] = 60,
    steps: Annotated[int | None, typer.Option(help="Training steps per task.")] = None,
) -> None:
    """Simulate a cohort, scan, check, train, evaluate, predict: the whole job in five minutes."""
    from vesalius.flows.demo import demo as run

    progress = terminal.Progress()
    result = run(out, patients=patients, steps=steps, say=terminal.say, progress=progress)
    progress.close()
    terminal.say(f"report: {result.report}")
