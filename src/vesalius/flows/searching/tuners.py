# SPDX-License-Identifier: Apache-2.0
"""The tuner of a search: the one that was asked for, told what is known to be good."""

from __future__ import annotations

from vesalius.flows.searching.request import Asked
from vesalius.flows.searching.result import objectives_of
from vesalius.flows.searching.task import of_task
from vesalius.tuning.asha import Asha, Ladder
from vesalius.tuning.model_based import ModelBased
from vesalius.tuning.protocol import Proposal, Tuner
from vesalius.tuning.random_search import RandomSearch
from vesalius.tuning.space import Space
from vesalius.tuning.told import Told
from vesalius.tuning.tpe import Tpe
from vesalius.types import Json


def tuner_of(asked: Asked, space: Space, setting: Json) -> Tuner:
    """Return the tuner that was asked for."""
    objectives, told = objectives_of(setting), Told(asked.seed)
    top = len(setting["steps"]) - 1
    task = of_task(asked.task)
    ladder = Ladder(top + 1, lambda point: task.lowest(point, top))
    if asked.tuner == "random":
        return RandomSearch(space, top, told)
    if asked.tuner == "tpe":
        return Tpe(space, objectives, top, told)
    if asked.tuner == "asha":
        return Asha(space, objectives, ladder, told)
    known = first_proposals(asked.task, space, top)
    known += [
        Proposal(point, task.lowest(point, top), "good in an earlier search")
        for point in setting["first"]
    ]
    return ModelBased(space, objectives, ladder, told, first=known)


def first_proposals(task: str, space: Space, top: int) -> list[Proposal]:
    """Return what is known to be good: what is cheap, the plan made by itself, other networks."""
    known = of_task(task).first(space.parameters[0].values)
    return [
        Proposal(space.defaults(model=model), top if full else 0, why) for model, full, why in known
    ]
