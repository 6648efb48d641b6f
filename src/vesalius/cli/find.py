# SPDX-License-Identifier: Apache-2.0
"""The verb `find`: the cases of an archive that are most like an image, words, or both."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vesalius.cli import terminal
from vesalius.cli.options import AsJson, MaxMemory, image_limits


def find(
    archive: Annotated[Path, typer.Argument(help="Archive folder that `index` made.")],
    image: Annotated[
        list[Path] | None, typer.Option(help="File or folder of an exam; may be repeated.")
    ] = None,
    words: Annotated[str, typer.Option(help="What to look for, in words.")] = "",
    where: Annotated[
        str, typer.Option(help="Filter on the archive: \"modality='MR' and age>50\".")
    ] = "",
    k: Annotated[int, typer.Option("-k", help="How many cases.")] = 10,
    balance: Annotated[
        float, typer.Option(help="What words weigh beside images: 0 nothing, 1 everything.")
    ] = 0.5,
    explain: Annotated[
        bool, typer.Option("--explain", help="Draw where the images are alike (with --html).")
    ] = False,
    html: Annotated[Path | None, typer.Option(help="File for a page of pictures.")] = None,
    own: Annotated[
        bool, typer.Option("--own", help="Show the patient's own images as well.")
    ] = False,
    show_text: Annotated[
        bool,
        typer.Option("--show-text", help="Show query images that may have a name in them (page)."),
    ] = False,
    at: Annotated[
        int | None, typer.Option(help="Version of the archive that is to answer.")
    ] = None,
    encoder: Annotated[
        str, typer.Option(help="Where the archive's run is now, if it was moved.")
    ] = "",
    pseudonym_key: Annotated[
        Path | None, typer.Option(help="Key of the archive's cohort, if that was moved.")
    ] = None,
    max_image_memory: MaxMemory = "",
    as_json: AsJson = False,
) -> None:
    """Find the cases like this one: by image, by words, or by both, with the reason of each."""
    from vesalius.flows.find import find as flow

    answer = flow(
        archive,
        image=image or (),
        words=words,
        where=where,
        k=k,
        balance=balance,
        explain=explain,
        html=html,
        own=own,
        show_text=show_text,
        at=at,
        encoder=encoder,
        pseudonym_key=pseudonym_key,
        limits=image_limits(max_image_memory),
    )
    if as_json:
        terminal.say_json(answer.to_json())
        return
    head, *rest = answer.lines()
    terminal.say(head)
    columns, rows = answer.table()
    if rows:
        terminal.say_table(columns, rows)
    for line in rest:
        terminal.say(line)
