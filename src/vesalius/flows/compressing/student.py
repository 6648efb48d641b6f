# SPDX-License-Identifier: Apache-2.0
"""The student's run: its plan, and what it takes over from its teacher."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from vesalius.files import read_json, write_json
from vesalius.flows.compressing.choice import Limits
from vesalius.types import Json

if TYPE_CHECKING:
    from vesalius.cohorts import Cohort
    from vesalius.tasks.run import Run

_KEPT = ("split.json", "normalizer.json")


def request_of(teacher: Run, cohort: Cohort, budget: Json, limits: Limits, seed: int) -> Json:
    """Return what is asked for, as it is compared with the request of an earlier run."""
    return {
        "task": teacher.task,
        "target": teacher.plan["target"],
        "student_of": teacher.id,
        "cohort": cohort.digest(),
        "budget": budget,
        "max_latency": limits.seconds,
        "max_size": limits.bytes,
        "seed": seed,
    }


def begin(
    teacher: Run,
    cohort: Cohort,
    request: Json,
    decisions: Json,
    audit: Iterable[str],
    out: Path | None,
    command: str,
) -> Run:
    """Write the student's plan and return its run.

    Args:
        teacher: a finished run.
        cohort: of both.
        request: of `request_of`.
        decisions: of the student's plan.
        audit: lines.
        out: folder; None for `runs/<task>-<plan's hash>`.
        command: the exact command.
    """
    from vesalius.flows.planning.draft import cache_bytes
    from vesalius.tasks.run import start_run

    plan = {
        "task": teacher.task,
        "target": teacher.plan["target"],
        "seed": request["seed"],
        "request": request,
        "fingerprint": teacher.plan["fingerprint"],
        "decisions": decisions,
        "estimates": {
            "cache_bytes": cache_bytes(teacher.task, teacher.plan["fingerprint"], decisions)
        },
        "cohort": {**teacher.plan["cohort"], "digest": cohort.digest(), "version": cohort.version},
        "split_digest": teacher.plan["split_digest"],
        "audit": list(audit),
        "measured": {},
        "command": command,
    }
    return start_run(plan, out)


def take_over(run: Run, teacher: Run, cohort: Cohort, keys: Iterable[str]) -> None:
    """Write what comes from the teacher: split, normalizer, and the images that it has seen.

    Args:
        run: the student's.
        teacher: its.
        cohort: of both.
        keys: of images that the teacher did not learn from, and the student does.
    """
    from vesalius.cohorts.splits import Split
    from vesalius.flows.seen_images import FILE, remember

    for name in _KEPT:
        write_json(run.path / name, read_json(teacher.path / name))
    remember(run, cohort, Split(dict.fromkeys(keys, "train")))
    held, old = run.path / FILE, teacher.path / FILE
    if old.exists():
        both = {*read_json(held)["content"], *read_json(old)["content"]}
        write_json(held, {"content": sorted(both)})
