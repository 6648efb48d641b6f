# SPDX-License-Identifier: Apache-2.0
"""One function a verb: arguments in, flow called, outcome printed.

Exit codes: 0 done; 1 a defect of Vesalius; 2 wrong usage; 3 the data cannot serve; 4 a library is
missing; 5 memory, disk or minutes do not suffice; 6 no network; 7 `check --strict` or `doctor`
found errors; 130 interrupted.
"""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vesalius.cli import terminal

if TYPE_CHECKING:
    from vesalius.flows.normalize import Normalization
    from vesalius.io.limits import Limits

FOUND_ERRORS = 7
INTERRUPTED = 130

app = typer.Typer(
    name="vesalius",
    help="From a folder of medical scans to models in production.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class TaskName(StrEnum):
    """What `train` can learn."""

    classify = "classify"
    segment = "segment"
    detect = "detect"


class SplitName(StrEnum):
    """The subset that `evaluate` scores."""

    train = "train"
    val = "val"
    test = "test"


Cohort = Annotated[Path, typer.Argument(help="Cohort folder that `scan` made.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
MaxMemory = Annotated[
    str, typer.Option("--max-image-memory", help="What reading one image may take, e.g. 4GB.")
]


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        import vesalius

        terminal.say(f"vesalius {vesalius.__version__}")
        raise typer.Exit


@app.command()
def scan(
    data: Annotated[Path, typer.Argument(help="Folder of images, any formats, any layout.")],
    out: Annotated[Path, typer.Option(help="Cohort folder to create or bring up to date.")],
    labels: Annotated[Path | None, typer.Option(help="CSV/TSV/Parquet/JSON to join.")] = None,
    headers_only: Annotated[bool, typer.Option(help="Do not read pixels.")] = False,
    workers: Annotated[int | None, typer.Option(help="Processes; default one per core.")] = None,
    license: Annotated[str, typer.Option(help="License of the data.")] = "",  # noqa: A002
    pseudonym_key: Annotated[Path | None, typer.Option(help="Key shared with others.")] = None,
    patient_pattern: Annotated[
        str | None, typer.Option(help="Regular expression; group 1 is the patient in a path.")
    ] = None,
    max_image_memory: MaxMemory = "",
    as_json: AsJson = False,
) -> None:
    """Turn a folder of images into a cohort; only new and changed files are read."""
    from vesalius.flows.scan import scan as run

    progress = terminal.Progress()
    result = run(
        data,
        out=out,
        labels=labels,
        pixels=not headers_only,
        workers=workers,
        license=license,
        pseudonym_key=pseudonym_key,
        patient_pattern=patient_pattern,
        limits=_limits(max_image_memory),
        progress=progress,
    )
    progress.close()
    if as_json:
        terminal.say_json(result.to_json())
        return
    for line in result.lines():
        terminal.say(line)
    terminal.say(f"cohort: {out} — next: vesalius check {out}")


@app.command()
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


@app.command()
def train(
    task: Annotated[TaskName, typer.Argument(help="What to learn.")],
    cohort: Cohort,
    target: Annotated[
        str | None,
        typer.Option(help="Label to learn (classify); several yes/no ones joined by commas."),
    ] = None,
    target_kind: Annotated[
        str,
        typer.Option(
            help="auto, binary, multiclass, multilabel, ordinal (ordinal:low<mid<high), regression."
        ),
    ] = "auto",
    case: Annotated[
        str, typer.Option(help="What one label applies to: auto, patient, study, series, image.")
    ] = "auto",
    minutes: Annotated[float, typer.Option(help="Wall minutes for everything.")] = 10.0,
    steps: Annotated[
        int | None, typer.Option(help="Exact number of steps, instead of minutes.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; default runs/TASK-HASH.")] = None,
    model: Annotated[
        str,
        typer.Option(help="auto (several, mixed), or one network: see `vesalius models`."),
    ] = "auto",
    operating: Annotated[
        str,
        typer.Option(help="Threshold for sensitivity=0.95, specificity=0.9 or cost=10:1 (binary)."),
    ] = "",
    encoder: Annotated[
        Path | None,
        typer.Option(help="Encoder of yours (.safetensors, .onnx), used frozen (classify)."),
    ] = None,
    start: Annotated[
        Path | None, typer.Option("--from", help="Run whose network's weights to begin with.")
    ] = None,
    normalize: Annotated[
        str, typer.Option(help="Intensity method, see `vesalius normalize --list`, or auto.")
    ] = "auto",
    where: Annotated[str | None, typer.Option(help="SQL filter on the cohort's rows.")] = None,
    split: Annotated[Path | None, typer.Option(help="Split file to use.")] = None,
    ungrouped_split: Annotated[
        bool, typer.Option(help="Allow one patient on both sides of the split.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
) -> None:
    """Train a model within the minutes given; the same command resumes after an interruption."""
    from vesalius.flows.train import train as run

    progress = terminal.Progress()
    result = run(
        task.value,
        cohort,
        target=target,
        target_kind=target_kind,
        case=case,
        minutes=minutes,
        steps=steps,
        out=out,
        model=model,
        operating=operating,
        encoder=encoder,
        start=start,
        normalize=normalize,
        where=where,
        split=split,
        ungrouped_split=ungrouped_split,
        seed=seed,
        progress=progress,
        command=_command(),
    )
    progress.close()
    for line in result.audit():
        terminal.say(line)
    _say_scores(result.metrics, "val")
    terminal.say(f"run:    {result.path}")
    _say_report(result.path)


@app.command()
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
    _say_scores(metrics, metrics["scored"])
    _say_report(run)


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    exam: Annotated[Path, typer.Argument(help="File, DICOM folder or zip.")],
    out: Annotated[Path, typer.Option(help="Folder for the results.")],
    format: Annotated[  # noqa: A002 - the option's name
        str,
        typer.Option(
            help="auto; dicom-seg, rtstruct, nifti, nrrd, minc (segment); json, dicom-sr."
        ),
    ] = "auto",
    modality: Annotated[
        str, typer.Option(help="DICOM's code, for images that do not state theirs (classify).")
    ] = "",
    explain: Annotated[
        bool, typer.Option("--explain", help="Also write why: each image's weight, heat maps.")
    ] = False,
    max_image_memory: MaxMemory = "",
    as_json: AsJson = False,
) -> None:
    """Apply a run to a new exam; label maps come back on the source's own grid."""
    from vesalius.flows.predict import predict as flow

    result = flow(
        run,
        exam,
        out=out,
        format=format,
        modality=modality,
        explain=explain,
        limits=_limits(max_image_memory),
    )
    if as_json:
        terminal.say_json(result.to_json())
        return
    for line in result.lines():
        terminal.say(line)


@app.command()
def compare(
    run_a: Annotated[Path, typer.Argument(help="Run folder A.")],
    run_b: Annotated[Path, typer.Argument(help="Run folder B.")],
    split: Annotated[SplitName, typer.Option(help="Subset that both were scored on.")] = (
        SplitName.test
    ),
    out: Annotated[Path | None, typer.Option(help="Folder for JSON and HTML.")] = None,
    as_json: AsJson = False,
) -> None:
    """Compare two evaluated runs on the same cases: differences with intervals, P(B better)."""
    from vesalius.flows.compare import compare as flow

    result = flow(run_a, run_b, split=split.value, out=out)
    if as_json:
        terminal.say_json(result.to_json())
        return
    for line in result.lines():
        terminal.say(line)


@app.command()
def count(
    run: Annotated[Path, typer.Argument(help="Run folder of `train detect`.")],
    exam: Annotated[Path, typer.Argument(help="Image, DICOM folder or zip.")],
    out: Annotated[Path, typer.Option(help="Folder for the results.")],
    classify: Annotated[
        Path | None, typer.Option(help="Run of `train classify` that tells the kinds of --of.")
    ] = None,
    of: Annotated[str, typer.Option(help="Class whose objects are classified.")] = "",
    max_image_memory: MaxMemory = "",
    as_json: AsJson = False,
) -> None:
    """Find and count the objects of each class, with intervals; a white-cell differential."""
    from vesalius.flows.count import count as flow

    limits = _limits(max_image_memory)
    result = flow(run, exam, out=out, classify=classify, of=of, limits=limits)
    if as_json:
        terminal.say_json(result.to_json())
        return
    for line in result.lines():
        terminal.say(line)


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="Run folder of `train classify`.")],
    out: Annotated[Path, typer.Option(help="The file, ending in .onnx.")],
) -> None:
    """Write a classifier as one ONNX file, checked to give the run's answers."""
    from vesalius.flows.export import export as flow

    terminal.say(f"written: {flow(run, out=out)}")


@app.command()
def models(
    side: Annotated[int, typer.Option(help="Pixels of a side of the input.")] = 224,
    volume: Annotated[bool, typer.Option("--volume", help="Of cubes instead of images.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the networks with their parameters and multiply-adds for one input."""
    from vesalius.flows.models import models as flow

    rows = flow(side=side, volume=volume)
    if as_json:
        terminal.say_json(rows)
        return
    terminal.say_table(
        ["network", "parameters", "multiply-adds", "pretrained"],
        [
            (r["name"], f"{r['parameters'] / 1e6:.2f} M", f"{r['multiply_adds'] / 1e9:.3f} G",
             "imagenet" if r["pretrained"] else "")
            for r in rows
        ],
    )  # fmt: skip


@app.command()
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
            limits=_limits(max_image_memory),
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
        limits=_limits(max_image_memory),
        progress=progress,
    )
    progress.close()
    _say_normalization(result, as_json, every=False)
    if result.counts["refused"] == len(result.certificates):
        raise typer.Exit(DataError.exit_code)


@app.command()
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


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="For example medmnist:breastmnist.")],
    out: Annotated[Path, typer.Option(help="Folder for the file.")] = Path(),
) -> None:
    """Download a public data set from its official address and check it."""
    from vesalius.flows.fetch import fetch as run

    terminal.say(str(run(name, out=out)))


@app.command()
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


def main() -> None:
    """Run the command line; the user's own mistakes end in one sentence, never a traceback."""
    from vesalius.errors import VesaliusError

    try:
        app()
    except VesaliusError as error:
        sys.stderr.write(f"vesalius: {error}\n")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.stderr.write("vesalius: interrupted; the same command goes on where this stopped\n")
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(INTERRUPTED)


def _limits(max_image_memory: str) -> Limits:
    from vesalius.io.limits import DEFAULT_LIMITS, Limits

    if not max_image_memory:
        return DEFAULT_LIMITS
    return Limits(floor=terminal.byte_count(max_image_memory))


_WITH_FUSE = ("onto", "spacing", "kind", "ignore_frame")
_WITHOUT_FUSE = (
    "method", "options", "sd_tolerance", "reference", "where", "split", "masks", "rescale_units",
    "format",
)  # fmt: skip


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


def _say_report(run: Path) -> None:
    if (run / "report.html").exists():  # detection has none
        terminal.say(f"report: {run / 'report.html'}")


def _say_scores(metrics: dict[str, Any], split: str) -> None:
    from vesalius.results import Estimate

    for score in metrics["splits"][split]["scores"]:
        terminal.say(f"{split} {Estimate(**score)}")


def _blank(value: object) -> object:
    return "" if value is None or value != value else value


def _command() -> str:
    import shlex

    return shlex.join(["vesalius", *sys.argv[1:]])


if __name__ == "__main__":
    main()
