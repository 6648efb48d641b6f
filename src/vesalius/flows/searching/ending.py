# SPDX-License-Identifier: Apache-2.0
"""The end of a search: its winner confirmed, its reports written."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from vesalius.files import write_json
from vesalius.flows.searching.preparation import SPACE
from vesalius.flows.searching.result import CONFIRMED, SearchResult
from vesalius.flows.searching.task import of_task
from vesalius.tuning.space import Space
from vesalius.tuning.trial import Trial
from vesalius.types import Json

if TYPE_CHECKING:
    from vesalius.flows.searching.artifacts import Artifacts

_WORK, _WORK_PER_TRIAL = 4.0, 0.05  # seconds that reports take on one core that has nothing else
_RECENT = 5  # trials that say how busy the machine is
_CORRECTED = 100  # of the best trials, that the winner's score is corrected for


def seconds_needed(setting: Json, trials: Sequence[Trial]) -> float:
    """Return the wall seconds that `finish` will take, about, on a machine as busy as it is.

    Args:
        setting: of the search.
        trials: so far; of none that is done, what preparation took is the measure.
    """
    done = [trial for trial in trials if trial.done]
    seconds = float(setting["preparation_seconds"])
    if not done:
        return seconds
    slowdown = statistics.median(t.facts.get("slowdown", 1.0) for t in done[-_RECENT:])
    work = _WORK + _WORK_PER_TRIAL * min(len(done), _CORRECTED)
    answers = max(t.values["latency"] for t in done[-_RECENT:]) * len(setting["held_out"])
    return float(max(seconds, work * slowdown) + answers)


def finish(result: SearchResult, artifacts: Artifacts) -> SearchResult:
    """Confirm the winner, write its report and that of the search; have the front's runs here.

    Args:
        result: of a search with a trial that is done.
        artifacts: where its runs lie.
    """
    from vesalius.cohorts import Cohort
    from vesalius.flows.searching.held_out import confirm, correct
    from vesalius.reporting import write_card, write_report
    from vesalius.reporting.search import write_search
    from vesalius.tasks.run import Run
    from vesalius.tuning.importance import importance

    setting, ranked = result.setting, result.ranked
    asked: Json = setting["asked"]
    winner, quality = ranked[0], setting["quality"]
    whole = {winner.plan, *(trial.plan for trial in result.front)}
    for plan in {*whole, *(trial.plan for trial in ranked[:_CORRECTED])}:
        artifacts.bring(result.path / "runs" / plan, weights=plan in whole)
    run = Run.load(result.run_of(winner))
    opened = Cohort.open(asked["cohort"])
    chosen = opened.filter(asked["where"]) if asked["where"] else opened
    confirmed = {
        "winner": winner.number,
        "corrected": None,
        "held_out": confirm(run, chosen, setting["held_out"], quality)
        if setting["held_out"]
        else None,
    }
    runs = {trial.plan: trial.number for trial in reversed(ranked[:_CORRECTED])}
    found = correct(_paths(runs, result.path), quality)
    if found is not None:
        confirmed["corrected"] = found.to_json()
    write_card(run.path)
    write_report(run.path, chosen, split="val")
    write_json(result.path / CONFIRMED, confirmed)
    result = replace(result, confirmed=confirmed)
    space = Space.load(result.path / SPACE, known=of_task(asked["task"]).NAMES)
    shares = importance(space, result.trials, result.objectives[0])
    content = {**result.to_json(), "setting": setting, "importance": shares}
    return replace(result, report=write_search(content, result.path))


def _paths(runs: dict[str, int], search: Path) -> dict[int, Path]:
    return {number: search / "runs" / plan for plan, number in runs.items()}
