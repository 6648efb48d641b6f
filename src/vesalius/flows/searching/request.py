# SPDX-License-Identifier: Apache-2.0
"""What is asked of a search: the arguments that say what it is, as its folder keeps them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from vesalius.errors import RunError, UsageError, did_you_mean
from vesalius.files import read_json
from vesalius.flows.searching.task import TASKS
from vesalius.types import Json, PathLike

FILE, FORMAT = "search.json", "search 1"
MINUTES = 60.0  # where none are given
TUNERS = ("ours", "random", "tpe", "asha")
DEVICES = ("auto", "cpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Arguments of `vesalius.search`; files by their absolute paths, the space by its text.

    `share` is the minutes that a network may take which is trained in full; None where steps say.
    """

    task: str
    cohort: str
    target: str | None = None
    target_kind: str = "auto"
    case: str = "auto"
    steps: int | None = None
    share: float | None = None
    max_latency: float | None = None
    device: str = "auto"
    max_memory: int | None = None
    max_size: int | None = None
    disk: int | None = None
    space: str = ""
    tuner: str = "ours"
    start: str | None = None
    where: str | None = None
    split: str | None = None
    ungrouped_split: bool = False
    seed: int = 0

    def check(self) -> None:
        """Raise where an argument is wrong in itself.

        Raises:
            UsageError: says which, and what is allowed.
        """
        for name, value, known in (
            ("task", self.task, tuple(TASKS)),
            ("tuner", self.tuner, TUNERS),
            ("device", self.device, DEVICES),
        ):
            if value not in known:
                raise UsageError(
                    f"{name} of a search must be one of {', '.join(known)}, got '{value}'."
                    f"{did_you_mean(value, known)}"
                )
        for name in ("share", "steps", "max_latency", "max_memory", "max_size", "disk"):
            bound = getattr(self, name)
            if bound is not None and not bound > 0:
                said = "minutes" if name == "share" else name
                raise UsageError(f"{said} must be above 0, got {bound}")
        if self.seed < 0:
            raise UsageError(f"seed must not be negative, got {self.seed}")

    def differing(self, other: Self) -> list[str]:
        """Return the names of the arguments in which another one differs."""
        held = other.to_json()
        return [name for name, value in self.to_json().items() if value != held[name]]

    def to_json(self) -> Json:
        """Return a plain dictionary."""
        return asdict(self)

    def digest(self) -> str:
        """Return the hash of what is asked."""
        text = json.dumps(self.to_json(), sort_keys=True, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @classmethod
    def from_json(cls, held: Json) -> Self:
        """Return what `to_json` wrote."""
        return cls(**held)

    def of_trials(self, split: Path) -> Json:
        """Return the arguments that every trial's plan is made with.

        Args:
            split: file of the search's own split.
        """
        names = ("task", "target", "target_kind", "case", "where", "ungrouped_split", "seed")
        return {**{name: getattr(self, name) for name in names}, "split": str(split)}


def read_search(folder: PathLike) -> Json:
    """Return what a search's folder says of it.

    Raises:
        RunError: it is the folder of none.
    """
    path = Path(folder) / FILE
    try:
        held = read_json(path)
    except (OSError, ValueError) as error:
        raise RunError(
            f"'{folder}' is no search ({type(error).__name__} at {FILE}); give the folder that "
            "`vesalius search` printed"
        ) from error
    if not isinstance(held, dict) or held.get("format") != FORMAT:
        raise RunError(f"'{path}' must have the format '{FORMAT}'")
    return held


def asked_of(folder: PathLike) -> Asked:
    """Return what was asked of the search in a folder."""
    return Asked.from_json(read_search(folder)["asked"])
