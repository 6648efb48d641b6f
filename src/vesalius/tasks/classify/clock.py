# SPDX-License-Identifier: Apache-2.0
"""The minutes of a run: what still fits is decided before each candidate, and said in the audit."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from vesalius.types import Json

AT_THE_END = 4.0  # seconds kept for the mixture, calibration, scores and the report


@dataclass(slots=True)
class Clock:
    """What is left of a budget, and which candidates did not fit into it.

    Attributes:
        started: `time.monotonic()` when the minutes began.
        minutes: of everything; None where steps are asked for, and everything fits.
        left_out: candidate -> why, kept with the run so that a resumed one leaves out the same.
    """

    started: float
    minutes: float | None
    left_out: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, budget: Json, started: float, left_out: dict[str, str]) -> Clock:
        """Return the clock of a plan's budget: `{"minutes": m}` or `{"steps": n}`."""
        return cls(started, budget.get("minutes"), dict(left_out))

    @property
    def left(self) -> float:
        """Seconds until the work at the end has to begin; never below 0."""
        if self.minutes is None:
            return math.inf
        return max(0.0, self.started + 60 * self.minutes - time.monotonic() - AT_THE_END)

    def fits(self, name: str, seconds: Callable[[], float], *, share: float = 1.0) -> bool:
        """Return whether a candidate fits; one that does not is left out, with the reason.

        Args:
            name: of the candidate.
            seconds: tries a little of it and returns what all of it takes, about; it is not called
                where nothing has to be decided.
            share: of the time left that the candidate may take.
        """
        if name in self.left_out:
            return False
        if self.minutes is None:
            return True
        if not self.left:
            self.leave_out(name, "no time is left")
            return False
        needed = seconds()
        left = share * self.left
        if needed > left:
            self.leave_out(name, f"it takes about {needed:.0f} s, and {left:.0f} s were to be had")
        return needed <= left

    def leave_out(self, name: str, why: str) -> None:
        """Note a candidate that is not tried."""
        self.left_out[name] = why

    def lines(self) -> list[str]:
        """Return what the audit is to say."""
        return [f"{name} is left out for time: {why}" for name, why in self.left_out.items()]
