# SPDX-License-Identifier: Apache-2.0
"""A candidate that sees each study after the active run: what it says is kept, never sent.

A shadow job is queued with the end of the active run's job and is less urgent than any study, so
that nothing the candidate does changes the active run's result. It asks both runs, since what the
active one sent may be objects that hold no label map, and writes how far the two agree.
```
shadow/JOB/        the candidate's answer: prediction.json, label maps. Patient data.
```
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

from vesalius.serving import agreement, queue, versions
from vesalius.serving.agreement import Answer
from vesalius.serving.queue import Job
from vesalius.serving.state import State
from vesalius.types import Json

KIND = "shadow"
PRIORITY = -1000
_MOST_STUDIES = 1000


def ask(connection: sqlite3.Connection, job: Job, now: float) -> bool:
    """Queue the candidate's work on the study of a job that ends, in the same transaction.

    Returns:
        Whether the job's rule has a candidate.
    """
    rule = str(job.subject.get("rule", ""))
    candidate = versions.shadow(connection, rule)
    if candidate is None:
        return False
    inputs = job.subject["inputs"]
    return queue.add(
        connection,
        kind=KIND,
        key=f"shadow {job.id} {candidate.id}",
        study_uid=job.study_uid,
        subject={
            "rule": rule,
            "run": str(candidate.path),
            "run_id": candidate.id,
            "active": job.subject["run"],
            "active_id": job.subject["run_id"],
            "inputs": inputs,
        },
        now=now,
        priority=PRIORITY,
    )


def do(state: State, job: Job, answer: Answer, lay_out: Callable[[Path], None], work: Path) -> Json:
    """Ask candidate and active run for a study, and return how far they agree.

    Args:
        state: the state.
        job: of this kind.
        answer: applies a run.
        lay_out: shows the study's images as files of a folder.
        work: folder of the job.
    """
    exam = work / "exam"
    exam.mkdir(parents=True)
    lay_out(exam)
    for name in ("run", "active"):
        (work / name).mkdir()
        answer(Path(job.subject[name]), exam, work / name)
    found = agreement.of_answers(work / "active", work / "run")
    kept = state.folder / "shadow" / str(job.id)
    if not kept.exists():  # an attempt before may have come as far
        agreement.keep(work / "run", kept)
    return found


def agreed(connection: sqlite3.Connection, rule: str) -> Json | None:
    """Return how far a rule's candidate agrees with the active run; None without one.

    Of the latest 1,000 studies.

    Returns:
        `run`; `studies` that both answered; `waiting`, and `failed` (refused too) ones; of
        segmenters `dice`: structure -> mean and lowest; of classifiers `same`: the share of
        studies with the same class, and `largest_difference`: mean and largest.
    """
    candidate = versions.shadow(connection, rule)
    active = versions.active(connection, rule)
    if candidate is None or active is None:
        return None
    rows = connection.execute(
        "SELECT state, answer FROM jobs WHERE kind = ? AND json_extract(subject, '$.rule') = ? "
        "AND json_extract(subject, '$.run_id') = ? AND json_extract(subject, '$.active_id') = ? "
        "ORDER BY id DESC LIMIT ?",
        (KIND, rule, candidate.id, active.run.id, _MOST_STUDIES),
    ).fetchall()
    answers = [json.loads(text) for name, text in rows if name == "done"]
    out: Json = {
        "run": candidate.name,
        "studies": len(answers),
        "waiting": sum(name in ("ready", "leased") for name, _ in rows),
        "failed": sum(name in ("refused", "failed") for name, _ in rows),
    }
    scores: dict[str, list[float]] = {}
    for one in answers:
        for image in one.get("dice", ()):
            for structure, value in image.items():
                scores.setdefault(structure, []).append(value)
    if scores:
        out["dice"] = {
            name: {"mean": fmean(values), "lowest": min(values)}
            for name, values in sorted(scores.items())
        }
    same = [bool(one["same"]) for one in answers if "same" in one]
    if same:
        out["same"] = fmean(same)
    apart = [one["largest_difference"] for one in answers if "largest_difference" in one]
    if apart:
        out["largest_difference"] = {"mean": fmean(apart), "largest": max(apart)}
    return out


def line(found: Json) -> str:
    """Return what `agreed` gives, for people."""
    said = [f"{found['run']} looked on at {found['studies']} studies"]
    said += [
        f"{name}: Dice {one['mean']:.3f} with the active run, lowest {one['lowest']:.3f}"
        for name, one in found.get("dice", {}).items()
    ]
    if "same" in found:
        said.append(f"the same class in {found['same']:.1%}")
    said += [f"{found[name]} {name}" for name in ("waiting", "failed") if found[name]]
    return "; ".join(said)
