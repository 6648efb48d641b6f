# SPDX-License-Identifier: Apache-2.0
"""The model card of a run (Mitchell et al. 2019): what it is, how good, for what, from what."""

from __future__ import annotations

from pathlib import Path

from vesalius.files import write_text
from vesalius.reporting.content import flat, hashes, label_names, run_file, subset_name
from vesalius.reporting.redact import shareable_command
from vesalius.reporting.scores import interval, number, title
from vesalius.types import Json, PathLike


def write_card(run: PathLike) -> Path:
    """Write `card.md` into a run folder and return its path.

    Raises `RunError` when the folder has no plan or no metrics.
    """
    folder = Path(run)
    plan, metrics = run_file(folder, "plan.json"), run_file(folder, "metrics.json")
    data = plan.get("cohort", {})
    labels = label_names(metrics)
    task = metrics["task"]
    what = {"classify": "classifies", "detect": "counts", "retrieve": "finds like images by"}.get(
        task, "segments"
    )
    other = {"detect": "objects", "retrieve": "their vectors"}.get(task, "structures")
    aim = metrics.get("target") if task == "classify" else other
    of = ": ".join(filter(None, (_plain(aim), ", ".join(map(_plain, labels)))))
    license_ = data.get("license") or "not stated"
    command = shareable_command(plan.get("command"), run=folder, cohort=Path("COHORT"))
    lines = [
        f"# Model card: {metrics['task']} {_plain(aim)} ({plan.get('id')})",
        "",
        f"This model {what} {of}.",
        "",
        "## Intended use and limits",
        "",
        (
            "- Research and development on images like those it was trained on (see the decisions "
            "below). It is not a medical device and not for diagnosis."
        ),
        (
            "- Other modalities, scanners, populations or protocols than those of its cohort have "
            "not been measured; measure before use."
        ),
        "- Its scores hold for the share of each class in the cohort that was scored.",
        "",
        "## Scores",
    ]
    for split, part in metrics["splits"].items():
        lines += ["", *_scores(split, part)]
    lines += [
        "",
        "Intervals: bootstrap over patients. Failed cases count as the worst answer.",
        "",
        "## Data",
        "",
        f"- License of the data, inherited by this model: {_plain(license_)}",
        f"- Cohort version: {_plain(data.get('version'))}",
        f"- Data hash: `{data.get('digest')}`",
        *_neighbors(plan),
        "",
        "## Origin",
        "",
        f"- Plan: `{hashes(plan)['plan']}`",
        f"- Command: `{command}`",
        *[f"- {_plain(name)}: {_plain(value)}" for name, value in flat(plan.get("versions", {}))],
        "",
        "## Decisions",
        "",
        *[f"- {_plain(name)}: {_plain(value)}" for name, value in flat(plan.get("decisions", {}))],
    ]
    return write_text(folder / "card.md", "\n".join(lines) + "\n")


def _neighbors(plan: Json) -> list[str]:
    members = plan.get("measured", {}).get("members", ())
    if not any(member.get("spec", {}).get("head") == "knn" for member in members):
        return []
    line = (
        "- A nearest-neighbor member keeps the embeddings of training cases in "
        "`model.safetensors`: handle it as patient data."
    )
    return [line]


def _scores(split: str, part: Json) -> list[str]:
    return [
        (
            f"### {subset_name(split, part).capitalize()}: {part['n_cases']} cases, "
            f"{part['n_patients']} patients, {part['n_failed']} failed"
        ),
        "",
        "| score | of | value | 95 % interval | trivial answer |",
        "|---|---|---|---|---|",
        *(
            f"| {title(s['name'])} | {_plain(s.get('label') or 'all')} "
            f"| {number(s['value'], s.get('unit', ''))} | {interval(s)} "
            f"| {number(s.get('baseline'), s.get('unit', ''))} ({_plain(s.get('baseline_name'))}) |"
            for s in part["scores"]
        ),
    ]


def _plain(value: object) -> str:
    """Return a value as one line of Markdown without table marks or HTML."""
    words = " ".join(str(value).split())
    return words.replace("|", "/").replace("<", "‹").replace(">", "›")
