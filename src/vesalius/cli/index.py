# SPDX-License-Identifier: Apache-2.0
"""The verb `index`: a cohort becomes an archive to find similar cases in; its care."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vesalius.cli import terminal
from vesalius.cli.options import AsJson


def index(
    cohort: Annotated[
        Path,
        typer.Argument(help="Cohort folder; with --forget, --compact or --status the archive."),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Archive folder to make or bring up to date.")
    ] = None,
    encoder: Annotated[
        str, typer.Option(help="Run of `train retrieve`, or frozen: the pretrained encoder.")
    ] = "",
    case: Annotated[
        str,
        typer.Option(help="What is found as a whole: patient (default), study, series, image."),
    ] = "",
    where: Annotated[
        str, typer.Option(help="Filter on the cohort's rows: \"modality='CT'\".")
    ] = "",
    reembed: Annotated[
        bool, typer.Option("--reembed", help="Make all vectors anew, with --encoder.")
    ] = False,
    show_text: Annotated[
        bool,
        typer.Option(
            "--show-text", help="Keep pictures also of images that may have a name in them."
        ),
    ] = False,
    server: Annotated[
        str,
        typer.Option(help="Keep a new archive's entries at postgresql://user@host/database#name."),
    ] = "",
    forget: Annotated[
        list[str] | None,
        typer.Option(metavar="PATIENT", help="Erase a patient from the archive, for good."),
    ] = None,
    compact: Annotated[
        bool, typer.Option("--compact", help="Fold new rows into the archive's indexes.")
    ] = False,
    status: Annotated[bool, typer.Option("--status", help="Say how the archive is.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a cohort's images findable by image and by words; only what changed is worked on."""
    from vesalius.errors import UsageError

    if forget or compact or status:
        if out is not None or bool(forget) + compact + status > 1:
            raise UsageError(
                "--forget, --compact and --status each stand alone: vesalius index ARCHIVE --status"
            )
        _care(cohort, forget or [], compact=compact, as_json=as_json)
        return
    if out is None:
        raise UsageError("say where the archive is to be: --out ARCHIVE")
    from vesalius.flows.index import index as flow

    progress = terminal.Progress()
    result = flow(
        cohort,
        out=out,
        encoder=encoder,
        case=case,
        where=where,
        reembed=reembed,
        show_text=show_text,
        server=server,
        progress=progress,
        say=None if as_json else terminal.say,
    )
    progress.close()
    if as_json:
        terminal.say_json(result.to_json())
        return
    for line in result.lines():
        terminal.say(line)
    terminal.say(f"archive: {out} — next: vesalius find {out} --image EXAM")


def _care(archive: Path, forgotten: list[str], *, compact: bool, as_json: bool) -> None:
    """Erase patients, compact, or tell how the archive is."""
    from vesalius.flows import archive_care

    if forgotten:
        erased = archive_care.forget(archive, forgotten)
        if as_json:
            terminal.say_json(erased.to_json())
        else:
            terminal.say(erased.line())
        return
    if compact:
        archive_care.compact(archive)
    found = archive_care.status(archive)
    if as_json:
        terminal.say_json(found)
        return
    alarms = found.pop("alarms")
    shown = {name: _shown(value) for name, value in found.items()}
    terminal.say_pairs(shown)
    for alarm in alarms:
        terminal.say(f"alarm: {alarm}")


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {inner}" for name, inner in value.items())
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
