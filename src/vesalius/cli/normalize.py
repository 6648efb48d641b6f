# SPDX-License-Identifier: Apache-2.0
"""The verb `normalize`: series on one scale, or one patient's images on one grid."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vesalius.cli import terminal
from vesalius.cli.options import AsJson, MaxMemory, image_limits

if TYPE_CHECKING:
    from vesalius.flows.normalize import Normalization

_WITH_FUSE = ("onto", "spacing", "kind", "ignore_frame")
_WITHOUT_FUSE = (
    "method", "options", "sd_tolerance", "reference", "where", "split", "masks", "rescale_units",
    "format",
)  # fmt: skip


def normalize(
    context: typer.Context,
    data: Annotated[
        Path | None, typer.Argument(help="Images, a cohort folder, or with --fuse one patient.")
    ] = None,
    to: Annotated[Path | None, typer.Option(help="Folder for the results.")] = None,
    method: Annotated[
        str, typer.Option(help="auto, or a method of --list; several joined by +.")
    ] = "auto",
    options: Annotated[
        list[str] | None,
        typer.Option(
            "--option", help="NAME=VALUE: a parameter of the method; of several, of the first."
        ),
    ] = None,
    sd_tolerance: Annotated[
        float, typer.Option(help="What a series' standard deviation may depart from 1.")
    ] = 0.05,
    reference: Annotated[
        Path | None, typer.Option(help="Cohort, or normalized folder, to agree with.")
    ] = None,
    where: Annotated[str | None, typer.Option(help="SQL filter on the rows.")] = None,
    split: Annotated[Path | None, typer.Option(help="Fit on its training rows alone.")] = None,
    masks: Annotated[bool, typer.Option(help="Fit in each image's own mask.")] = False,
    rescale_units: Annotated[bool, typer.Option(help="Also rescale CT in HU, PET, ….")] = False,
    format: Annotated[  # noqa: A002 - the option's name
        str, typer.Option(help="Of the written series: auto, nifti, nrrd, metaimage or minc2.")
    ] = "auto",
    list_methods: Annotated[bool, typer.Option("--list", help="Print the methods.")] = False,
    explain: Annotated[
        Path | None, typer.Option(help="Print the certificates of a normalized folder.")
    ] = None,
    fuse: Annotated[
        str, typer.Option(help="Modalities to bring on one grid, for example CT,MR,PET.")
    ] = "",
    onto: Annotated[str, typer.Option(help="With --fuse: modality whose grid it is.")] = "",
    spacing: Annotated[
        float | None, typer.Option(help="With --fuse: millimeters of the grid's voxels.")
    ] = None,
    kind: Annotated[str, typer.Option(help="With --fuse: rigid, affine or identity.")] = "rigid",
    ignore_frame: Annotated[
        bool, typer.Option("--ignore-frame", help="With --fuse: positions in files mean nothing.")
    ] = False,
    workers: Annotated[int | None, typer.Option(help="Processes; default one per core.")] = None,
    max_image_memory: MaxMemory = "",
    as_json: AsJson = False,
) -> None:
    """Bring every series on one scale, each with a certificate; or fuse one patient's images."""
    from vesalius.errors import DataError, UsageError
    from vesalius.flows import normalize as flow

    _refuse_given(context, _WITHOUT_FUSE if fuse else _WITH_FUSE, bool(fuse))
    if list_methods:
        _say_methods(as_json)
        return
    if explain is not None:
        _say_normalization(flow.explain(explain), as_json, every=True)
        return
    if data is None or to is None:
        raise UsageError("normalize takes DATA and --to FOLDER (or --list, or --explain FOLDER)")
    progress = terminal.Progress()
    if fuse:
        from vesalius.flows.fuse import fuse as run

        fusion = run(
            data,
            modalities=tuple(name.strip() for name in fuse.split(",") if name.strip()),
            out=to,
            to=onto,
            spacing=None if spacing is None else (spacing, spacing, spacing),
            kind=kind,
            trust_frame=not ignore_frame,
            limits=image_limits(max_image_memory),
            progress=progress,
        )
        progress.close()
        if as_json:
            terminal.say_json(fusion.to_json())
            return
        for line in fusion.lines():
            terminal.say(line)
        return
    result = flow.normalize(
        data,
        to=to,
        method=method,
        options=dict(_pair(one) for one in options or ()),
        sd_tolerance=sd_tolerance,
        reference=reference,
        where=where,
        split=split,
        masks=masks,
        rescale_units=rescale_units,
        format=format,
        workers=workers,
        limits=image_limits(max_image_memory),
        progress=progress,
    )
    progress.close()
    _say_normalization(result, as_json, every=False)
    if result.counts["refused"] == len(result.certificates):
        raise typer.Exit(DataError.exit_code)


def _refuse_given(context: typer.Context, names: tuple[str, ...], fused: bool) -> None:
    """Raise where one of these parameters stands on the command line."""
    from vesalius.errors import UsageError

    for name in names:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            option = "--option" if name == "options" else f"--{name.replace('_', '-')}"
            raise UsageError(f"{option} {'does not go with' if fused else 'needs'} --fuse")


def _pair(text: str) -> tuple[str, Any]:
    """Return name and value of `NAME=VALUE`; a value that is JSON counts as such."""
    import json

    from vesalius.errors import UsageError

    name, sign, value = text.partition("=")
    if not sign or not name:
        raise UsageError(f"--option takes NAME=VALUE, got '{text}'")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _say_methods(as_json: bool) -> None:
    from vesalius.flows.normalize import methods

    cards = methods()
    if as_json:
        terminal.say_json([card.to_json() for card in cards])
        return
    terminal.say_table(
        ["method", "what it is", "formula", "laws", "source"],
        [
            (c.name, c.title, c.formula, ", ".join(sorted(map(str, c.laws))), c.source)
            for c in cards
        ],
    )


def _say_normalization(result: Normalization, as_json: bool, *, every: bool) -> None:
    if as_json:
        terminal.say_json(result.to_json())
        return
    shown = [c for c in result.certificates if every or c.verdict == "refused"]
    if shown:
        header = ["series", "modality", "verdict", "method", "SD", "reason"]
        rows = [
            [c.key, c.modality, str(c.verdict), c.method, _short(c.sd), c.message] for c in shown
        ]
        if result.files:  # for the person who named them; no file written holds their names
            header.append("file")
            rows = [[*row, result.files[row[0]]] for row in rows]
        terminal.say_table(header, rows)
    counts = ", ".join(f"{n} {name}" for name, n in result.counts.items() if n)
    terminal.say(f"{len(result.certificates)} series: {counts}")
    for one in result.equivalence:
        if one.equivalent is False:
            terminal.say(f"{one.site}: {one.what} differs by {one.difference:.3f} from the others")
    terminal.say(f"report: {result.report}")


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
