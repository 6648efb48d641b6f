# SPDX-License-Identifier: Apache-2.0
"""The verb `doctor`: whether this machine serves."""

from __future__ import annotations

import typer

from vesalius.cli import terminal
from vesalius.cli.exit_codes import FOUND_ERRORS
from vesalius.cli.options import AsJson


def doctor(as_json: AsJson = False) -> None:
    """Try out what Vesalius needs from this machine."""
    from vesalius.flows.doctor import doctor as run

    diagnosis = run()
    if as_json:
        terminal.say_json(
            [
                {"name": c.name, "ok": c.ok, "seen": c.seen, "way_out": c.way_out}
                for c in diagnosis.checks
            ]
        )
    else:
        for trial in diagnosis.checks:
            terminal.say(f"{'ok  ' if trial.ok else 'FAIL'} {trial.name}: {trial.seen}")
            if not trial.ok:
                terminal.say(f"     way out: {trial.way_out}")
    if not diagnosis.ok:
        raise typer.Exit(FOUND_ERRORS)
