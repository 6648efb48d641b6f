# SPDX-License-Identifier: Apache-2.0
"""What is printed of a run: its scores, and where its report lies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vesalius.cli import terminal


def say_scores(metrics: dict[str, Any], split: str) -> None:
    """Print the scores of one subset, with their intervals, a line each."""
    from vesalius.results import Estimate

    for score in metrics["splits"][split]["scores"]:
        terminal.say(f"{split} {Estimate(**score)}")


def say_report(run: Path) -> None:
    """Print where the run's HTML report is."""
    terminal.say(f"report: {run / 'report.html'}")
