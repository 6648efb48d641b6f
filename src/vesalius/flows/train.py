# SPDX-License-Identifier: Apache-2.0
"""`vesalius train`: from a cohort to a run folder, within the minutes given, resumable."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

from vesalius.errors import BudgetError, UsageError
from vesalius.types import Json, PathLike, Progress, Task

if TYPE_CHECKING:
    from vesalius.cohorts import Cohort
    from vesalius.flows.plan import Plan
    from vesalius.flows.planning.asked import Asked
    from vesalius.flows.planning.draft import Data
    from vesalius.tasks.run import Run


def train(
    task: Task,
    cohort: PathLike | Cohort,
    *,
    target: str | None = None,
    target_kind: str = "auto",
    case: str = "auto",
    minutes: float | None = None,
    steps: int | None = None,
    folds: int = 1,
    out: PathLike | None = None,
    model: str = "auto",
    operating: str = "",
    encoder: PathLike | None = None,
    start: PathLike | None = None,
    normalize: str = "auto",
    where: str | None = None,
    split: PathLike | None = None,
    ungrouped_split: bool = False,
    seed: int = 0,
    labels: str = "",
    ignore: str = "",
    memory: int | None = None,
    pairs: str = "",
    plan: PathLike | Plan | None = None,
    progress: Progress | None = None,
    command: str = "",
) -> Run:
    """Train a model and return its run.

    The same call after an interruption finds the same run and does its remaining steps; after
    the end it returns the finished run at once.

    Args:
        task: `classify`, `segment`, `detect` (boxes, for counting) or `retrieve` (vectors for
            `vesalius index`).
        cohort: a cohort or its folder.
        target: the label to learn (classify), or several separated by commas that each say yes
            or no; the labels that images share (retrieve); may be left out where there is only
            one.
        target_kind: `auto`, `binary`, `multiclass`, `multilabel`, `ordinal` (its grades in order
            after a colon where numbers do not say it: `ordinal:low<mid<high`), `regression`.
        case: what one label applies to: `auto`, `patient`, `study`, `series`, `image`.
        minutes: wall minutes for everything, 10 where no steps are asked for; a probe turns them
            into steps, written in the plan.
        steps: exact number of steps instead; only then are two machines' results comparable.
        folds: networks to train (segment), each without one part of the training and validation
            cases, in its share of the minutes or for all of the steps; the run answers with the
            mean of their probabilities. 1: one network, and the split's validation cases.
        out: run folder; default `runs/<task>-<plan's hash>`.
        model: `auto` (classify: frozen features and a network, mixed), `frozen` (classify:
            features of a pretrained encoder alone), or one network's name (detect: an encoder's).
        operating: threshold to choose on validation cases (classify, binary):
            `sensitivity=0.95`, `specificity=0.9`, `cost=10:1` (of a miss and a false alarm).
        encoder: `.safetensors` or `.onnx` file in place of the pretrained encoder whose features
            are used frozen (classify, models auto and frozen); it is copied into the run.
        start: a finished run of the same task whose network's weights to begin with (classify,
            segment).
        normalize: intensity method for images without a physical unit (`vesalius normalize
            --list`), or `auto`.
        where: SQL filter on the cohort's rows, for example `modality='CT'`.
        split: a split file; default by patient and near-duplicate, official splits honored.
        ungrouped_split: allow one patient on both sides (named in the audit).
        seed: of split, weights, order and augmentation.
        labels: what to learn of the masks (segment), joined by commas: names or values, or several
            under a name of their own, `whole=anterior+posterior`; the rest is background. They may
            overlap. Empty: all of them.
        ignore: names or values of the masks whose voxels count neither in training nor in scores.
        memory: bytes that training may take at its peak (segment): patch and batch are chosen so.
        pairs: what belongs together (retrieve): `same-label` (the default), `captions` (images and
            their words), `same-study`, or several joined by commas.
        plan: of `vesalius.plan`, or its file, edited or not: its decisions are taken as they
            stand. It says all of the above but `out` and the files `split`, `encoder` and `start`,
            which are handed in again where it was made with them.
        progress: called as `progress(stage, done, total)`.
        command: the exact command, for the report; default this call.

    Raises:
        UsageError: a wrong argument, or a plan that does not fit.
        CohortError: the cohort has no label, no mask, no box or too few cases.
        BudgetError: the minutes do not suffice for ten steps, or the memory for any patch.
        RunError: `out` holds another run.
    """
    started = time.monotonic()
    from vesalius.flows.plan import Plan
    from vesalius.flows.planning.asked import Asked
    from vesalius.flows.planning.draft import gather
    from vesalius.flows.planning.edits import read_plan, refuse_other_data
    from vesalius.reporting import write_card, write_report
    from vesalius.tasks.run import find_run, plan_id

    asked = Asked(
        task=task,
        target=target,
        target_kind=target_kind,
        case=case,
        minutes=minutes,
        steps=steps,
        folds=folds,
        model=model,
        operating=operating,
        encoder=encoder,
        start=start,
        normalize=normalize,
        where=where,
        split=split,
        ungrouped_split=ungrouped_split,
        seed=seed,
        labels=labels,
        ignore=ignore,
        memory=memory,
        pairs=pairs,
    )
    held = None if plan is None else read_plan(plan.to_json() if isinstance(plan, Plan) else plan)
    if held is not None:
        asked = asked.planned(held)
    data = gather(asked, cohort)
    if held is not None:
        refuse_other_data(held, data)
        data.request["plan"] = plan_id(held)
    folder = Path(out) if out is not None else None
    run = find_run(data.request, folder) or _begin(data, held, folder, command)
    if run.finished and (run.path / "report.html").exists():
        return run.note("this run was finished before; nothing was trained again")
    if not run.finished:
        run = _learn(asked, run, data, started, progress)
        run = run.measure(seconds=round(time.monotonic() - started, 1))
    write_card(run.path)
    write_report(run.path, data.cohort, split="val")
    return run


def _learn(asked: Asked, run: Run, data: Data, started: float, progress: Progress | None) -> Run:
    """Lay beside the plan what belongs to it, and train; all of it once, however often begun."""
    from vesalius.files import write_json
    from vesalius.flows.seen_images import remember
    from vesalius.tasks.segment.folds import FILE as FOLDS

    if asked.encoder is not None and data.encoder is not None:
        kept = run.path / data.encoder["file"]
        if not kept.exists():
            shutil.copyfile(asked.encoder, kept)
    if data.folds and not (run.path / FOLDS).exists():
        write_json(run.path / FOLDS, data.folds)
    if not (run.path / "split.json").exists():
        remember(run, data.cohort, data.split)
        data.split.save(run.path / "split.json")
    return _fit(asked, run, data, started, progress)


def _begin(data: Data, held: Json | None, folder: Path | None, command: str) -> Run:
    """Return a new run with its plan written, or the one that the same plan began before.

    Args:
        data: what it is made from.
        held: the plan that was handed in.
        folder: for the run; None for `runs/<task>-<plan's hash>`.
        command: the exact command, for the report.
    """
    from vesalius.flows.planning.draft import draft
    from vesalius.flows.planning.edits import with_decisions
    from vesalius.tasks.run import Run, plan_id, start_run

    plan = draft(data)
    if held is not None:
        plan = with_decisions(plan, held)
        _refuse_impossible(plan, data)
    place = folder or Path("runs") / f"{plan['task']}-{plan_id(plan)[:8]}"
    if (place / "plan.json").exists():  # another request that led to the same decisions
        return Run.load(place)
    plan["measured"] = {}
    plan["command"] = command or _call(plan["request"])
    plan["audit"].append(_check_disk(place, plan))
    return start_run(plan, place)


def _refuse_impossible(plan: Json, data: Data) -> None:
    """Try a step of each network of an edited plan, before anything is written."""
    from vesalius.flows.planning.trials import take_steps

    try:
        take_steps(plan, data)
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else "no reason given"
        raise UsageError(
            f"the edited plan cannot be trained; its first step says: {reason} "
            f"({type(error).__name__}); take an edit back, or plan again"
        ) from error


def _check_disk(folder: Path, plan: Json) -> str:
    """Return the audit's line on disk space, or refuse before the work begins."""
    needed = plan["estimates"]["cache_bytes"]
    parent = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
    free = shutil.disk_usage(parent).free
    if needed > 0.9 * free:
        raise BudgetError(
            f"preparing the images takes about {needed / 1e9:.1f} GB in the run folder, and only "
            f"{free / 1e9:.1f} GB are free; choose an --out on a larger disk, or filter the rows"
        )
    return f"prepared images take about {needed / 1e6:.0f} MB on disk while training"


def _fit(asked: Asked, run: Run, data: Data, started: float, progress: Progress | None) -> Run:
    if asked.task == "segment":
        from vesalius.tasks.segment.fit import train_run as train_segmenter

        return train_segmenter(
            run,
            data.cohort,
            data.cases,
            started=started,
            progress=progress,
            origin=data.origin,
        )
    if asked.task == "detect":
        from vesalius.tasks.detect.fit import train_run as train_detector

        return train_detector(run, data.cohort, data.cases, started=started, progress=progress)
    if asked.task == "retrieve":
        from vesalius.tasks.retrieve.fit import train_run as train_embedder

        return train_embedder(run, data.cohort, data.cases, started=started, progress=progress)
    from vesalius.tasks.classify.fit import train_run as train_classifier

    return train_classifier(
        run, data.cohort, data.cases, started=started, progress=progress, start=asked.start
    )


def _call(request: Json) -> str:
    names = ("target", "target_kind", "case", "where", "model", "normalize", "seed")
    held = {name: request[name] for name in names} | request["budget"]
    if request["from"]:
        held["start"] = request["from"]
    if request["folds"] > 1:
        held["folds"] = request["folds"]
    held |= {name: request.get(name) for name in ("labels", "ignore", "memory", "pairs")}
    if request["plan"]:
        held = {"plan": request["plan"]}
    given = ", ".join(f"{name}={value!r}" for name, value in held.items() if value)
    return f"vesalius.train({request['task']!r}, cohort, {given})"
