# SPDX-License-Identifier: Apache-2.0
"""One parameter of a space: what values it may take, and on what it depends."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np

from vesalius.errors import UsageError, did_you_mean
from vesalius.types import Json

Kind = Literal["float", "int", "choice"]
KINDS: tuple[Kind, ...] = ("float", "int", "choice")
_KEYS = ("kind", "low", "high", "log", "values", "default", "when")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One parameter.

    Attributes:
        name: unique in its space.
        kind: `float` and `int` lie from `low` to `high`, both included; a `choice` is one of
            `values`.
        low, high: bounds of a number.
        log: whether a number is drawn evenly on a logarithmic scale.
        values: of a choice, each a text, number or truth value.
        default: what is tried first.
        when: parameter -> values, for each parameter that this one depends on: it exists only
            where all of them have one of these values.
    """

    name: str
    kind: Kind
    low: float = 0.0
    high: float = 1.0
    log: bool = False
    values: tuple[Any, ...] = ()
    default: Any = None
    when: Mapping[str, tuple[Any, ...]]

    @classmethod
    def from_json(cls, name: str, held: Any) -> Self:
        """Read and check one entry of a space's file.

        Raises:
            UsageError: an unknown key or kind, bounds or a default that do not fit.
        """
        if not isinstance(held, dict):
            raise _misfit(name, "an object with 'kind'", held)
        for key in held:
            if key not in _KEYS:
                raise UsageError(
                    f"parameter '{name}' of the space has an unknown key '{key}'; known are "
                    f"{', '.join(_KEYS)}.{did_you_mean(key, _KEYS)}"
                )
        kind = held.get("kind")
        if kind not in KINDS:
            raise _misfit(f"{name}.kind", f"one of {', '.join(KINDS)}", kind)
        when = held.get("when", {})
        if not isinstance(when, dict) or not all(isinstance(v, list) for v in when.values()):
            raise _misfit(f"{name}.when", "an object of lists", when)
        conditions = {of: tuple(values) for of, values in when.items()}
        parameter = (
            cls._choice(name, held, conditions)
            if kind == "choice"
            else cls._number(name, kind, held, conditions)
        )
        parameter.check(parameter.default)
        return parameter

    @classmethod
    def _choice(cls, name: str, held: Json, when: Mapping[str, tuple[Any, ...]]) -> Self:
        values = held.get("values")
        if not isinstance(values, list) or not values or len(values) != len(set(map(str, values))):
            raise _misfit(f"{name}.values", "a list of different values", values)
        default = held.get("default", values[0])
        return cls(name=name, kind="choice", values=tuple(values), default=default, when=when)

    @classmethod
    def _number(
        cls, name: str, kind: Kind, held: Json, when: Mapping[str, tuple[Any, ...]]
    ) -> Self:
        log = held.get("log", False)
        low, high = (_bound(name, kind, held, end) for end in ("low", "high"))
        if not isinstance(log, bool):
            raise _misfit(f"{name}.log", "true or false", log)
        if low > high or (log and low <= 0):
            bound = "above 0 and at most" if log else "at most"
            raise _misfit(f"{name}.low", f"{bound} high, {high}", low)
        middle = math.sqrt(low * high) if log else (low + high) / 2
        default = held.get("default", round(middle) if kind == "int" else middle)
        return cls(name=name, kind=kind, low=low, high=high, log=log, default=default, when=when)

    def to_json(self) -> Json:
        """Return the entry of a space's file."""
        held: Json = {"kind": self.kind}
        if self.kind == "choice":
            held["values"] = list(self.values)
        else:
            held |= {"low": self.low, "high": self.high} | ({"log": True} if self.log else {})
        held["default"] = self.default
        if self.when:
            held["when"] = {of: list(values) for of, values in self.when.items()}
        return held

    def check(self, value: Any) -> None:
        """Raise `UsageError` where a value is not allowed."""
        if self.kind == "choice":
            if value not in self.values:
                near = did_you_mean(str(value), map(str, self.values))
                allowed = ", ".join(map(str, self.values))
                raise UsageError(
                    f"parameter '{self.name}' must be one of {allowed}, got {value!r}.{near}"
                )
            return
        whole = self.kind == "int"
        kind = int if whole else (int, float)
        if not _is_number(value) or not isinstance(value, kind):
            raise _misfit(self.name, "a whole number" if whole else "a number", value)
        slack = 1e-9 * max(abs(self.low), abs(self.high))
        if not self.low - slack <= value <= self.high + slack:
            raise _misfit(self.name, f"from {self.low:g} to {self.high:g}", value)

    def exists(self, parameters: Mapping[str, Any]) -> bool:
        """Return whether the parameters that this one depends on allow it."""
        return all(parameters.get(of) in values for of, values in self.when.items())

    def draw(self, rng: np.random.Generator) -> Any:
        """Return a value, each as likely as the others."""
        return self.at(float(rng.uniform()))

    def at(self, share: float) -> Any:
        """Return the value at a share of the way, from 0 to 1."""
        if self.kind == "choice":
            return self.values[min(len(self.values) - 1, int(share * len(self.values)))]
        # whole numbers take even parts of the way, the first and the last too
        low, high = (
            (self.low - 0.5, self.high + 0.5) if self.kind == "int" else (self.low, self.high)
        )
        if self.log:
            value = math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
        else:
            value = low + share * (high - low)
        value = min(max(value, self.low), self.high)
        return round(value) if self.kind == "int" else value

    def share(self, value: Any) -> float:
        """Return how far along the way a number lies, from 0 to 1; 0.5 where there is no way."""
        if self.low == self.high:
            return 0.5
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return float((value - self.low) / (self.high - self.low))


def _bound(name: str, kind: Kind, held: Json, end: str) -> float:
    value: Any = held.get(end)
    if not _is_number(value) or (kind == "int" and not isinstance(value, int)):
        raise _misfit(f"{name}.{end}", "a whole number" if kind == "int" else "a number", value)
    return value  # type: ignore[no-any-return]  # checked


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _misfit(name: str, wanted: str, given: Any) -> UsageError:
    return UsageError(f"the space's {name} must be {wanted}, got {given!r}")
