# SPDX-License-Identifier: Apache-2.0
"""What is asked of training: the arguments that `plan` and `train` share, checked."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Self

from vesalius.errors import UsageError
from vesalius.types import Json, PathLike

TASKS = ("classify", "segment", "detect", "retrieve")
MINUTES = 10.0  # where neither minutes nor steps are asked for
_LEARNED = {"segment": "the masks", "detect": "the boxes"}
PAIRS = "same-label"  # where a retrieval run is asked for no others
_FILES = ("split", "encoder", "start")  # what a plan knows by its digest alone


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The arguments of `vesalius.train` that bear on its plan, with their defaults."""

    task: str
    target: str | None = None
    target_kind: str = "auto"
    case: str = "auto"
    minutes: float | None = None
    steps: int | None = None
    folds: int = 1
    model: str = "auto"
    operating: str = ""
    encoder: PathLike | None = None
    start: PathLike | None = None
    normalize: str = "auto"
    where: str | None = None
    split: PathLike | None = None
    ungrouped_split: bool = False
    seed: int = 0
    labels: str = ""
    ignore: str = ""
    memory: int | None = None
    pairs: str = ""

    @property
    def budget(self) -> Json:
        """What a plan states: `{"steps": n}` where steps are asked for, else `{"minutes": m}`."""
        if self.steps is not None:
            return {"steps": self.steps}
        return {"minutes": MINUTES if self.minutes is None else self.minutes}

    def planned(self, held: Json) -> Self:
        """Return the arguments that a plan was made with, and of these its files.

        Args:
            held: the plan.

        Raises:
            UsageError: the plan is of another task, or one of the arguments is the plan's to say.
        """
        if held["task"] != self.task:
            raise UsageError(f"the plan is one of '{held['task']}', and the task '{self.task}'")
        given = [
            field.name
            for field in fields(self)
            if field.name not in ("task", *_FILES) and getattr(self, field.name) != field.default
        ]
        if given:
            raise UsageError(
                f"the plan says {', '.join(given)}; leave it out, edit the plan's decisions, or "
                "make another plan"
            )
        request = held["request"]
        own = {"pairs": request["pairs"]} if self.task == "retrieve" else {}
        names = (
            "target", "target_kind", "case", "folds", "model", "operating", "normalize", "seed",
            "labels", "ignore", "memory",
        )  # fmt: skip
        return replace(
            self,
            **{name: request[name] for name in names},
            **own,
            **request["budget"],
            where=request["where"] or None,
            ungrouped_split=request["ungrouped_split"],
        )

    def check(self) -> None:
        """Raise where an argument is wrong in itself.

        Raises:
            UsageError: says which, and what is allowed.
        """
        if self.task not in TASKS:
            raise UsageError(f"task must be one of {', '.join(TASKS)}, got '{self.task}'")
        check_budget(self.budget)
        if self.folds < 1:
            raise UsageError(f"folds must be 2 or more, or 1 for one network, got {self.folds}")
        if self.folds > 1 and self.task != "segment":
            raise UsageError(f"folds belong to segment, not to {self.task}; leave them out")
        own = {"labels": self.labels, "ignore": self.ignore, "memory": self.memory}
        given = [name for name, value in own.items() if value not in (None, "")]
        if given and self.task != "segment":
            raise UsageError(
                f"{', '.join(given)} belong to segment, not to {self.task}; leave them out"
            )
        if self.memory is not None and self.memory <= 0:
            raise UsageError(f"memory must be a number of bytes above 0, got {self.memory}")
        if self.pairs and self.task != "retrieve":
            raise UsageError(f"pairs belong to retrieve, not to {self.task}; leave them out")
        if self.seed < 0:
            raise UsageError(f"seed must not be negative, got {self.seed}")
        if self.task == "classify":
            if self.start is not None and self.model in ("auto", "frozen"):
                raise UsageError(
                    f"--from begins a network that --model names, and model is '{self.model}'"
                )
            return
        if self.start is not None and self.task in ("detect", "retrieve"):
            raise UsageError("--from begins a network of classify or segment; leave it out")
        if self.target is not None and self.task != "retrieve":
            raise UsageError(
                f"target belongs to classify; {self.task} learns {_LEARNED[self.task]} of the "
                "cohort"
            )
        of_classify = {
            "target_kind": self.target_kind,
            "case": self.case,
            "operating": self.operating,
            "encoder": self.encoder,
        }
        given = [name for name, value in of_classify.items() if value not in (None, "", "auto")]
        if given:
            raise UsageError(
                f"{', '.join(given)} belong to classify, not to {self.task}; leave them out"
            )


def check_budget(budget: Json) -> None:
    """Raise where a budget is neither `{"steps": n}` nor `{"minutes": m}`, or has a wrong number.

    Raises:
        UsageError: says what is allowed.
    """
    (name,) = budget if len(budget) == 1 else ("",)
    if name not in ("minutes", "steps"):
        raise UsageError(
            f"a budget is of minutes or of steps, one of them, got {', '.join(budget) or 'none'}"
        )
    value = budget[name]
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if name == "steps" and not (number and isinstance(value, int) and value >= 1):
        raise UsageError(f"steps must be at least 1, got {value}")
    if name == "minutes" and not (number and 0 < value < 1e6):
        raise UsageError(f"minutes must be positive, got {value}")
