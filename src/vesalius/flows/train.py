# SPDX-License-Identifier: Apache-2.0
"""`vesalius train`: from a cohort to a run folder, within the minutes given, resumable."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from vesalius.errors import BudgetError, UsageError
from vesalius.types import Json, PathLike, Progress, Task

if TYPE_CHECKING:
    from vesalius.cohorts import Cohort
    from vesalius.cohorts.splits import Split
    from vesalius.tasks.cases import Cases
    from vesalius.tasks.run import Run

TASKS = ("classify", "segment", "detect")


def train(
    task: Task,
    cohort: PathLike | Cohort,
    *,
    target: str | None = None,
    target_kind: str = "auto",
    case: str = "auto",
    minutes: float = 10.0,
    steps: int | None = None,
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
    progress: Progress | None = None,
    command: str = "",
) -> Run:
    """Train a model and return its run.

    The same call after an interruption finds the same run and does its remaining steps; after
    the end it returns the finished run at once.

    Args:
        task: `classify`, `segment` or `detect` (boxes, for counting).
        cohort: a cohort or its folder.
        target: the label to learn (classify), or several separated by commas that each say yes
            or no; may be left out where there is only one.
        target_kind: `auto`, `binary`, `multiclass`, `multilabel`, `ordinal` (its grades in order
            after a colon where numbers do not say it: `ordinal:low<mid<high`), `regression`.
        case: what one label applies to: `auto`, `patient`, `study`, `series`, `image`.
        minutes: wall minutes for everything; a probe turns them into steps, written in the plan.
        steps: exact number of steps instead; only then are two machines' results comparable.
        out: run folder; default `runs/<task>-<plan's hash>`.
        model: `auto` (classify: frozen features and a network, mixed), `frozen` (classify:
            features of a pretrained encoder alone), or one network's name.
        operating: threshold to choose on validation cases (classify, binary):
            `sensitivity=0.95`, `specificity=0.9`, `cost=10:1` (of a miss and a false alarm).
        encoder: `.safetensors` or `.onnx` file in place of the pretrained encoder whose features
            are used frozen (classify, models auto and frozen); it is copied into the run.
        start: a finished run of the same task whose network's weights to begin with.
        normalize: intensity method for images without a physical unit (`vesalius normalize
            --list`), or `auto`.
        where: SQL filter on the cohort's rows, for example `modality='CT'`.
        split: a split file; default by patient and near-duplicate, official splits honored.
        ungrouped_split: allow one patient on both sides (named in the audit).
        seed: of split, weights, order and augmentation.
        progress: called as `progress(stage, done, total)`.
        command: the exact command, for the report; default this call.

    Raises:
        UsageError: a wrong argument.
        CohortError: the cohort has no label, no mask or too few cases.
        BudgetError: the minutes do not suffice for ten steps.
        RunError: `out` holds another run.
    """
    started = time.monotonic()
    from vesalius.cohorts import Cohort
    from vesalius.flows.seen_images import remember
    from vesalius.reporting import write_card, write_report
    from vesalius.tasks.run import Run, find_run, start_run

    own = {"target_kind": target_kind, "case": case, "operating": operating}
    _validate(task, minutes, steps, target, {**own, "encoder": encoder, "from": start})
    if seed < 0:
        raise UsageError(f"seed must not be negative, got {seed}")
    if start is not None and model in ("auto", "frozen"):
        raise UsageError(f"--from begins a network that --model names, and model is '{model}'")
    origin = Run.load(start) if start is not None else None
    opened = cohort if isinstance(cohort, Cohort) else Cohort.open(cohort)
    chosen = opened.filter(where) if where else opened
    if task == "detect":
        from vesalius.tasks.detect.train import train_detector

        return train_detector(
            chosen,
            minutes=minutes,
            steps=steps,
            out=out,
            model=model,
            normalize=normalize,
            split=split,
            ungrouped_split=ungrouped_split,
            seed=seed,
            progress=progress,
            command=command,
        )
    cases = _cases(task, chosen, target, case, target_kind)
    named = target if task == "segment" or target else chosen.targets[0]
    parted = _split(chosen, named, split, ungrouped_split, seed)
    if task == "classify":
        parted = _held_back(parted, chosen, cases, seed)
    budget: Json = {"steps": steps} if steps is not None else {"minutes": minutes}
    request: Json = {
        "task": task,
        "target": named,
        "target_kind": target_kind,
        "case": case,
        "seed": seed,
        "model": model,
        "from": "" if origin is None else _origin(origin, parted),
        "encoder": "",
        "operating": operating,
        "budget": budget,
        "normalize": normalize,
        "where": where or "",
        "cohort": chosen.digest(),
        "split": parted.digest(),
    }
    described = None
    if encoder is not None:
        from vesalius.tasks.classify.plan import describe_encoder

        described = describe_encoder(encoder)
        request["encoder"] = described["digest"]
    folder = Path(out) if out is not None else None
    run = find_run(request, folder)
    if run is not None and run.finished:
        return run.note("this run was finished before; nothing was trained again")
    if run is None:
        plan: Json = {
            "task": task,
            "target": named,
            "seed": seed,
            "request": request,
            **_plan(task, chosen, cases, parted.rows, request, described),
            "measured": {},
            "command": command or _call(task, named, request),
            "cohort": {
                "digest": request["cohort"],
                "version": chosen.version,
                "license": chosen.license,
                "where": where or "",
            },
            "split_digest": request["split"],
            "audit": [*cases.audit, *parted.audit],
        }
        plan["audit"].append(_check_disk(folder or Path("runs"), plan))
        run = start_run(plan, folder)
    if encoder is not None and described is not None:
        kept = run.path / described["file"]
        if not kept.exists():
            shutil.copyfile(encoder, kept)
    if not (run.path / "split.json").exists():
        remember(run, chosen, parted)
        parted.save(run.path / "split.json")
    run = _fit(task, run, chosen, cases, started, progress, start)
    write_card(run.path)
    write_report(run.path, chosen, split="val")
    return run.measure(seconds=round(time.monotonic() - started, 1))


def _validate(
    task: str, minutes: float, steps: int | None, target: str | None, asked: Mapping[str, object]
) -> None:
    if task not in TASKS:
        raise UsageError(f"task must be one of {', '.join(TASKS)}, got '{task}'")
    if steps is not None and steps < 1:
        raise UsageError(f"steps must be at least 1, got {steps}")
    if steps is None and not 0 < minutes < 1e6:
        raise UsageError(f"minutes must be positive, got {minutes}")
    if task == "classify":
        return
    if target is not None:
        learned = {"segment": "the masks", "detect": "the boxes"}[task]
        raise UsageError(f"target belongs to classify; {task} learns {learned} of the cohort")
    given = [name for name, value in asked.items() if value not in (None, "", "auto")]
    if given:
        raise UsageError(f"{', '.join(given)} belong to classify, not to {task}; leave them out")


def _cases(task: str, cohort: Cohort, target: str | None, case: str, kind: str) -> Cases:
    from vesalius.tasks import cases

    if task == "segment":
        return cases.segmentation_cases(cohort)
    return cases.classification_cases(cohort, target, case, target_kind=kind)


def _held_back(split: Split, cohort: Cohort, cases: Cases, seed: int) -> Split:
    """Return the split with the cases that are held back for calibration."""
    from vesalius.tasks.cases import case_groups
    from vesalius.tasks.classify.held_back import hold_back

    rows, lines = hold_back(split.rows, cases, case_groups(cohort, cases.cases), seed)
    return replace(split, rows=rows, audit=(*split.audit, *lines))


def _split(
    cohort: Cohort, target: str | None, path: PathLike | None, ungrouped: bool, seed: int
) -> Split:
    from vesalius.cohorts.splits import Split, make_split

    if path is not None:
        return Split.load(Path(path))
    names = target.split(",") if target else None
    return make_split(cohort, target=names, seed=seed, ungrouped=ungrouped)


def _plan(
    task: str,
    cohort: Cohort,
    cases: Cases,
    rows: Mapping[str, str],
    request: Json,
    encoder: Json | None,
) -> Json:
    """Return fingerprint, decisions and estimates, from training rows alone."""
    train = cases.subset(rows, "train")
    held = {name: request[name] for name in ("model", "budget", "normalize")}
    if task == "segment":
        from vesalius.tasks.segment import plan as segmentation

        found = segmentation.fingerprint(cohort, train)
        decisions = segmentation.decide(found, **held)
        disk = segmentation.cache_bytes(found, decisions)
    else:
        from vesalius.tasks.balance import balance
        from vesalius.tasks.classify import plan as classification

        if cases.target is None:
            raise UsageError("classify needs a target")
        truths = [case.truth for case in train]
        found = classification.fingerprint(train, cases.target)
        target = cases.target.fitted(truths)
        decisions = classification.decide(
            found, target, truths, case=cases.kind, encoder=encoder, **held
        )
        decisions["start"] = request["from"]
        decisions["operating"] = _operating(request["operating"], target.kind)
        found["balance"] = balance(target, truths)
        disk = classification.cache_bytes(found, decisions)
    plan: Json = {"fingerprint": found, "decisions": decisions, "estimates": {"cache_bytes": disk}}
    return plan


def _operating(asked: str, kind: str) -> Json:
    from vesalius.tasks.classify.thresholds import read_request

    if asked and kind != "binary":
        raise UsageError(f"an operating point belongs to a binary target, and this one is {kind}")
    return read_request(asked) if asked else {}


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


def _origin(run: Run, split: Split) -> str:
    """Return the hash of the run to begin with; refuse what would leak from it."""
    if run.task != "classify":
        raise UsageError(f"--from takes a run of classify, got one of {run.task}")
    if not run.finished:
        raise UsageError(f"the run '{run.path}' that --from names is not finished")
    seen = run.subsets()
    leaked = sum(
        subset != "train" and seen.get(key, subset) not in (subset, "test")
        for key, subset in split.rows.items()
    )
    if leaked:
        raise UsageError(
            f"{leaked} images that this run is to be judged by were used by the run that --from "
            f"names; give its split: --split {run.path / 'split.json'}"
        )
    return run.id


def _fit(
    task: str,
    run: Run,
    cohort: Cohort,
    cases: Cases,
    started: float,
    progress: Progress | None,
    start: PathLike | None,
) -> Run:
    if task == "segment":
        from vesalius.tasks.segment.fit import train_run as train_segmenter

        return train_segmenter(run, cohort, cases, started=started, progress=progress)
    from vesalius.tasks.classify.fit import train_run as train_classifier

    return train_classifier(run, cohort, cases, started=started, progress=progress, start=start)


def _call(task: str, target: str | None, request: Json) -> str:
    held = {
        "target": target,
        **{k: request[k] for k in ("target_kind", "case", "where", "model", "normalize", "seed")},
    }
    held |= request["budget"] | ({"start": request["from"]} if request["from"] else {})
    given = ", ".join(f"{name}={value!r}" for name, value in held.items() if value)
    return f"vesalius.train({task!r}, cohort, {given})"
