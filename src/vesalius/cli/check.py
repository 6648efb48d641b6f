# SPDX-License-Identifier: Apache-2.0
"""The verb `check`: what is wrong with a cohort."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vesalius.cli import terminal
from vesalius.cli.exit_codes import FOUND_ERRORS
from vesalius.cli.options import AsJson, Cohort


def check(
    cohort: Cohort,
    out: Annotated[Path | None, typer.Option(help="HTML page; default COHORT/check.html.")] = None,
    strict: Annotated[bool, typer.Option(help="Exit with 7 if an error was found.")] = False,
    limit: Annotated[int, typer.Option(help="Findings to print.")] = 40,
    as_json: AsJson = False,
) -> None:
    """List what is wrong with a cohort, slice by slice, and write a page with pictures."""
    from vesalius.flows.check import check as run

    result = run(cohort, out=out)
    if as_json:
        columns = ["name", "severity", "key", "slice", "message", "evidence"]
        terminal.say_json(
            {
                "images": result.images,
                "counts": result.counts,
                "report": str(result.report),
                "findings": result.findings[columns].to_dict("records"),
            }
        )
    else:
        terminal.say_table(
            ["finding", "severity", "image", "slice", "message"],
            [
                (row.name_, row.severity, row.key or row.file, _blank(row.slice), row.message)
                for row in result.findings.rename(columns={"name": "name_"})
                .head(limit)
                .itertuples(index=False)
            ],
        )
        if len(result.findings) > limit:
            terminal.say(f"… and {len(result.findings) - limit} more (--limit, --json)")
        terminal.say(
            f"{result.images} images: {result.errors} errors, {result.warnings} warnings, "
            f"{len(result.findings) - result.errors - result.warnings} notes"
        )
        terminal.say(f"report: {result.report}")
    if strict and result.errors:
        raise typer.Exit(FOUND_ERRORS)


def _blank(value: object) -> object:
    return "" if value is None or value != value else value
