# SPDX-License-Identifier: Apache-2.0
"""Gathers what a report of one run says, as plain JSON, before any page is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vesalius.errors import RunError, UsageError
from vesalius.files import read_json
from vesalius.reporting import scores as scoring
from vesalius.reporting.cases import worst_cases
from vesalius.reporting.detections import worst_images
from vesalius.reporting.findings import summarize
from vesalius.reporting.html import counted
from vesalius.reporting.population import describe, frame_of, notice
from vesalius.reporting.redact import plain_evidence, shareable_command, without_paths
from vesalius.types import Json

if TYPE_CHECKING:
    import pandas as pd

    from vesalius.cohorts import Cohort

SUBSET_NAMES = {"val": "validation", "test": "test", "train": "training"}


@dataclass(frozen=True, slots=True)
class RunContent:
    """One run in one split.

    Attributes:
        json: what `report.json` holds.
        frame: one row an image of the cohort, for finding pictures.
        predictions: the split's rows of `predictions.parquet`.
        logs: network (`` where a run has one) -> events of its `log.jsonl`.
    """

    json: Json
    frame: pd.DataFrame
    predictions: pd.DataFrame
    logs: dict[str, list[Json]]


def gather(run: Path, cohort: Cohort, split: str) -> RunContent:
    """Read a run folder and count its cohort.

    Raises `RunError` when a file is missing and `UsageError` when the split was not scored.
    """
    import pandas as pd

    plan, metrics = run_file(run, "plan.json"), run_file(run, "metrics.json")
    splits = metrics["splits"]
    if split not in splits:
        raise UsageError(
            f"split must be one that was scored, {sorted(splits)}, got '{split}': "
            "run `vesalius evaluate` with that split first"
        )
    task, target = metrics["task"], metrics.get("target")
    labels = label_names(metrics)
    parquet = run / "predictions.parquet"
    if not parquet.is_file():
        raise RunError("the run has no predictions.parquet: run `vesalius evaluate` again")
    predictions = pd.read_parquet(parquet)
    predictions = predictions[predictions["split"] == split]
    divided = run_file(run, "split.json") if (run / "split.json").is_file() else {}
    frame = frame_of(cohort, target if task == "classify" else None)
    population = describe(cohort, frame, divided.get("rows", {}))
    logs = run_logs(run)
    content = {
        "format": 1,
        "kind": "run-report",
        "task": task,
        "target": target,
        "labels": labels,
        "split": split,
        "title": _title(task, target, labels),
        "notice": notice(population),
        "headline": headline(task, splits[split], split),
        "metrics": {k: v for k, v in splits[split].items() if k != "left_out"},
        "left_out": [without_paths(str(line)) for line in splits[split].get("left_out", [])],
        "cohort": population,
        "findings": summarize(cohort.findings()),
        "split_audit": _audit(plan, divided),
        "split_settings": divided.get("settings", {}),
        "training": {name: _training(log) for name, log in logs.items()},
        "cases": worst_images(predictions, labels)
        if task == "detect"
        else []
        if task == "retrieve"
        else worst_cases(task, predictions, labels),
        "command": shareable_command(plan.get("command"), run=run, cohort=Path(cohort.path)),
        "versions": plan.get("versions", {}),
        "hashes": hashes(plan, cohort),
        "decisions": plain_evidence(plan.get("decisions", {})),
        "measured": plain_evidence(plan.get("measured", {})),
    }
    return RunContent(content, frame, predictions, logs)


def run_logs(run: Path) -> dict[str, list[Json]]:
    """Return the events of a run's training, by network where it has several."""
    from vesalius.training.log import read_log

    if (run / "log.jsonl").is_file():
        return {"": read_log(run / "log.jsonl")}
    return {path.parent.name: read_log(path) for path in sorted(run.glob("networks/*/log.jsonl"))}


def run_file(run: Path, name: str) -> Json:
    """Return a JSON file of a run folder; `RunError` when it is not there."""
    path = run / name
    if not path.is_file():
        raise RunError(
            f"the run has no {name}: it is not a run folder, or its training has not ended; "
            "repeat the training command, which resumes"
        )
    content: Json = read_json(path)
    return content


def label_names(metrics: Json) -> list[str]:
    """Return the names of a run's classes or structures."""
    named = metrics.get("classes") or metrics.get("labels") or []
    return [str(name) for name in (named.values() if isinstance(named, Mapping) else named)]


_SEEN = {
    "test": "not seen in training",
    "val": "which also chose the weights",
    "train": "which the weights were trained on",
}


_HELD_OUT = "each answered by the network that did not learn from it, but chose its weights by it"


def subset_name(split: str, metrics: Json) -> str:
    """Return what one entry of `metrics.json` was measured on, in words."""
    if folds := metrics.get("folds"):
        return f"training and validation subsets, {folds} folds"
    return f"{SUBSET_NAMES.get(split, split)} subset"


def headline(task: str, metrics: Json, split: str) -> Json:
    """Return the sentence on top: what was measured, on whom, against what."""
    score = scoring.headline_score(task, metrics["scores"])
    who = f"On {counted(metrics['n_cases'], 'case')} of "
    who += f"{counted(metrics['n_patients'], 'patient')} ({subset_name(split, metrics)}"
    seen = _SEEN.get(split, "another cohort, not seen in training")
    who += f", {_HELD_OUT if metrics.get('folds') else seen})"
    failed = metrics.get("n_failed", 0)
    failures = "No case failed."
    if failed:
        failures = f"Failed, and counted as wrong: {failed} of {metrics['n_cases']}."
    if score is None:
        return {"sentence": f"{who}, no score is defined. {failures}", "score": None, "verdict": ""}
    name, unit = scoring.named(score), score.get("unit", "")
    if task == "detect":
        name = f"the error of the count of {score['label']}, which gains least of all classes,"
    judged = scoring.verdict(score)
    bounds = f"95 % interval {scoring.interval(score)}"
    if score.get("low") is None:
        bounds = "no interval"
    sentence = (
        f"{who}, {name} is {scoring.number(score['value'], unit)} "
        f"({bounds}), against "
        f"{scoring.number(score.get('baseline'), unit)} ({score.get('baseline_name')}): "
        f"{judged}. {failures}"
    )
    return {"sentence": sentence, "score": score, "verdict": judged}


def hashes(plan: Json, cohort: Cohort | None = None) -> Json:
    """Return what names the plan and its data; with `cohort`, whether it is the same data."""
    trained = plan.get("cohort", {})
    found = {
        "plan": plan.get("id"),
        "data of training": trained.get("digest"),
        "cohort version of training": trained.get("version"),
    }
    if cohort is not None:
        found |= {"data of this report": cohort.digest()}
    return found


def flat(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return nested settings as `name.part` and text, for a list."""
    rows = []
    for name, part in value.items():
        if isinstance(part, Mapping):
            rows += flat(part, f"{prefix}{name}.")
        else:
            listed = ", ".join(map(str, part)) if isinstance(part, list) else str(part)
            rows.append((f"{prefix}{name}".replace("_", " "), listed))
    return rows


def _audit(plan: Json, divided: Json) -> list[str]:
    """Return what was grouped, left out and decided, each line once."""
    lines = [*divided.get("audit", []), *plan.get("audit", [])]
    return list(dict.fromkeys(without_paths(str(line)) for line in lines))


def _title(task: str, target: str | None, labels: list[str]) -> str:
    if task == "classify":
        return f"Classification: {target}"
    if task == "retrieve":
        return f"Retrieval: {target or 'images and words'}"
    what = "Counting" if task == "detect" else "Segmentation"
    return f"{what}: {', '.join(labels[:6])}{' …' if len(labels) > 6 else ''}"


def _training(log: list[Json]) -> Json:
    steps = [event for event in log if event["event"] == "step"]
    checks = [event for event in log if event["event"] == "validation"]
    last = log[-1] if log else {}
    return {
        "steps": steps[-1]["step"] if steps else None,
        "steps planned": log[0].get("steps") if log else None,
        "seconds": last.get("seconds"),
        "finished": any(event["event"] == "end" for event in log),
        "last_loss": steps[-1].get("loss") if steps else None,
        "validations": len(checks),
    }
