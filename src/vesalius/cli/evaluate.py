# SPDX-License-Identifier: Apache-2.0
"""The verb `evaluate`: a run is scored on a cohort."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vesalius.cli import terminal
from vesalius.cli.options import AsJson, Cohort, SplitName
from vesalius.cli.run_outcome import say_report, say_scores


def evaluate(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    cohort: Cohort,
    split: Annotated[SplitName, typer.Option(help="Subset to score.")] = SplitName.test,
    as_json: AsJson = False,
) -> None:
    """Score a run on patients that it has not seen, with intervals, and write its report."""
    from vesalius.flows.evaluate import evaluate as flow

    progress = terminal.Progress()
    metrics = flow(run, cohort, split=split.value, progress=progress)
    progress.close()
    if as_json:
        terminal.say_json(metrics)
        return
    say_scores(metrics, metrics["scored"])
    say_report(run)
