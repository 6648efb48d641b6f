# SPDX-License-Identifier: Apache-2.0
"""Before the first trial: the split without cases set apart, the space, the rungs' steps."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

from vesalius.errors import BudgetError, UsageError
from vesalius.files import write_json
from vesalius.flows.searching.request import FILE, FORMAT, Asked
from vesalius.flows.searching.task import of_task
from vesalius.tuning.asha import REDUCTION
from vesalius.tuning.space import Space
from vesalius.types import Json

if TYPE_CHECKING:
    pass

SPACE, SPLIT = "space.json", "split.json"
_RUNGS, _FEWEST_STEPS = 3, 10
_TAKEN_OVER = 5  # points of an earlier search


def prepare(asked: Asked, folder: Path, *, minutes: float, command: str) -> Json:
    """Write what a search is made from into its folder, and return what `search.json` holds.

    That file is written last: a folder without it was never begun.

    Raises:
        UsageError: a wrong argument or space. CohortError: no label, or too few cases.
        BudgetError: the minutes suffice for nothing.
    """
    from vesalius.cohorts import Cohort
    from vesalius.cohorts.splits import Split, make_split
    from vesalius.flows.planning.asked import Asked as AskedOfPlan
    from vesalius.flows.planning.draft import draft, gather
    from vesalius.flows.searching.held_out import set_apart

    begun = time.monotonic()
    task = of_task(asked.task)
    edited = _read_space(asked)
    opened = Cohort.open(asked.cohort)
    chosen = opened.filter(asked.where) if asked.where else opened
    cases = task.cases(chosen, asked.target, asked.case, asked.target_kind)
    target = None
    if asked.task == "classify":
        target = (asked.target or chosen.targets[0]).split(",")
    split = (
        Split.load(asked.split)
        if asked.split
        else make_split(chosen, target=target, seed=asked.seed, ungrouped=asked.ungrouped_split)
    )
    split, keys, lines = set_apart(split, chosen, cases, asked.seed)
    folder.mkdir(parents=True, exist_ok=True)
    split.save(folder / SPLIT)
    of_trials = asked.of_trials((folder / SPLIT).absolute())
    data = gather(AskedOfPlan(**of_trials, steps=_FEWEST_STEPS), opened)
    plan = draft(data)
    models, steps, said = _affordable(asked, of_trials, plan["decisions"], edited)
    space = edited or task.declare(plan["fingerprint"], plan["decisions"], models)
    space.save(folder / SPACE)
    points, words = _points_of(asked.start, space)
    setting: Json = {
        "format": FORMAT,
        "asked": asked.to_json(),
        "minutes": minutes,
        "command": command,
        "cohort_digest": data.request["cohort"],
        "quality": task.quality(plan["decisions"]),
        "target": plan["target"],
        "steps": steps,
        "held_out": keys,
        "first": points,
        "preparation_seconds": round(time.monotonic() - begun, 1),
        "audit": [*plan["audit"], *lines, *said, *words],
    }
    write_json(folder / FILE, setting)
    return setting


def refuse_other_data(setting: Json) -> None:
    """Raise where the cohort of a search has changed since it began.

    Raises:
        UsageError: it has.
    """
    from vesalius.cohorts import Cohort

    asked = setting["asked"]
    opened = Cohort.open(asked["cohort"])
    chosen = opened.filter(asked["where"]) if asked["where"] else opened
    if chosen.digest() != setting["cohort_digest"]:
        raise UsageError(
            "the cohort has other rows or labels now than when this search began; search anew in "
            "another --out"
        )


def _points_of(search: str | None, space: Space) -> tuple[list[Json], list[str]]:
    """Return the best points of an earlier search that this one's space holds, and a line."""
    if search is None:
        return [], []
    from vesalius.flows.searching.result import SearchResult

    points: list[Json] = []
    for trial in SearchResult.load(search).ranked:
        point = dict(trial.parameters)
        if len(points) < _TAKEN_OVER and space.holds(point) and point not in points:
            points.append(point)
    return points, [f"the best {len(points)} points of an earlier search are tried early"]


def _read_space(asked: Asked) -> Space | None:
    """Return the space that was handed in, None where it is to be declared."""
    if not asked.space:
        return None
    try:
        held = json.loads(asked.space)
    except ValueError as error:
        raise UsageError(f"the space cannot be read (JSON): {error}") from error
    space = Space.from_json(held, known=of_task(asked.task).NAMES)
    if space.parameters[0].name != "model":
        raise UsageError("the space's first parameter must be 'model'; one value will do")
    return space


def _affordable(
    asked: Asked, of_trials: Json, decisions: Json, edited: Space | None
) -> tuple[list[str], list[int], list[str]]:
    """Return the models that there is time for, the steps of each rung, and lines for the audit."""
    from vesalius.flows.plan import plan

    models = of_task(asked.task).candidate_models(decisions)
    steps, said = asked.steps, []
    if steps is None:
        try:
            estimates = plan(cohort=asked.cohort, minutes=asked.share, **of_trials).estimates
        except BudgetError as error:
            if "frozen" not in models:
                raise BudgetError(f"a trial has {asked.share:.2g} minutes: {error}") from error
            estimates = {"networks": {}, "left_out": {"": str(error)}}
        steps = max((one["steps"] for one in estimates["networks"].values()), default=0)
        if steps < _FEWEST_STEPS:
            why = next(iter(estimates.get("left_out", {"": "too few steps fit"}).values()))
            models, steps = ["frozen"], 1
            said = [f"networks are not searched, a trial has {asked.share:.2g} minutes: {why}"]
    if edited is not None:
        models = list(edited.parameters[0].values)
    shares = [steps // REDUCTION**n for n in reversed(range(_RUNGS))]
    rungs = [n for n in shares if n >= _FEWEST_STEPS and n < steps] + [steps]
    if models == ["frozen"]:
        rungs = [steps]
    words = ", ".join(map(str, rungs))
    return models, rungs, [*said, f"steps of a network, from the cheapest trial to full: {words}"]
