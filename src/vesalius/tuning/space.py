# SPDX-License-Identifier: Apache-2.0
"""A space: the declared, conditional parameters of a search, as a file that a person may edit."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from vesalius.errors import UsageError, did_you_mean
from vesalius.files import read_json, write_json
from vesalius.tuning.parameter import Parameter
from vesalius.types import Array, Json, PathLike

FORMAT = "space 1"


@dataclass(frozen=True, slots=True)
class Space:
    """Parameters, each after those that it depends on."""

    parameters: tuple[Parameter, ...]

    @classmethod
    def from_json(cls, held: Any, *, known: Iterable[str] | None = None) -> Self:
        """Read and check a space.

        Args:
            held: what its file holds: `{"format": "space 1", "parameters": {name: {…}}}`.
            known: names that mean something to whoever searches; None allows any.

        Raises:
            UsageError: an unknown parameter, or one that does not fit.
        """
        if not isinstance(held, dict) or held.get("format") != FORMAT:
            raise UsageError(
                f"what was handed in is no space: it needs the format '{FORMAT}'; every search "
                "writes its own as space.json"
            )
        entries = held.get("parameters")
        if not isinstance(entries, dict) or not entries:
            raise UsageError("the space has no parameters; each is an entry under 'parameters'")
        names = None if known is None else sorted(known)
        found: dict[str, Parameter] = {}
        for name, entry in entries.items():
            if names is not None and name not in names:
                raise UsageError(
                    f"the space has an unknown parameter '{name}'; known are {', '.join(names)}."
                    f"{did_you_mean(name, names)}"
                )
            parameter = Parameter.from_json(name, entry)
            for of, values in parameter.when.items():
                if of not in found:
                    raise UsageError(
                        f"parameter '{name}' depends on '{of}', which must stand before it in the "
                        f"space.{did_you_mean(of, found)}"
                    )
                if found[of].kind != "choice":
                    raise UsageError(f"'{name}' depends on '{of}', which must be a choice")
                for value in values:
                    found[of].check(value)
            found[name] = parameter
        return cls(tuple(found.values()))

    @classmethod
    def load(cls, path: PathLike, *, known: Iterable[str] | None = None) -> Self:
        """Read a space's file; see `from_json`."""
        try:
            held = read_json(path)
        except (OSError, ValueError) as error:
            raise UsageError(f"the space {path} cannot be read (JSON): {error}") from error
        return cls.from_json(held, known=known)

    def to_json(self) -> Json:
        """Return what the file holds."""
        return {"format": FORMAT, "parameters": {p.name: p.to_json() for p in self.parameters}}

    def save(self, path: PathLike) -> Path:
        """Write the file, durably."""
        return write_json(path, self.to_json())

    def check(self, values: Mapping[str, Any]) -> None:
        """Raise `UsageError` where values are no point of the space."""
        names = [p.name for p in self.parameters]
        for name in values:
            if name not in names:
                raise UsageError(
                    f"'{name}' is no parameter of the space; known are {', '.join(names)}."
                    f"{did_you_mean(name, names)}"
                )
        for parameter in self.parameters:
            there, wanted = parameter.name in values, parameter.exists(values)
            if wanted != there:
                raise UsageError(
                    f"parameter '{parameter.name}' is {'missing' if wanted else 'void'}"
                )
            if wanted:
                parameter.check(values[parameter.name])

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Return whether values are a point of the space."""
        try:
            self.check(values)
        except UsageError:
            return False
        return True

    def defaults(self, **given: Any) -> Json:
        """Return the default point, with some values given; those that then exist, no others."""
        return self._fill(lambda p: given.get(p.name, p.default))

    def draw(self, rng: np.random.Generator) -> Json:
        """Return a point drawn at random."""
        return self._fill(lambda p: p.draw(rng))

    def near(self, values: Mapping[str, Any], rng: np.random.Generator, *, step: float) -> Json:
        """Return a point beside another one: each value moved with a chance of a third.

        Args:
            values: a point.
            rng: for the draws.
            step: standard deviation of a number's move, in shares of its way.
        """

        def value(parameter: Parameter) -> Any:
            if parameter.name not in values:
                return parameter.draw(rng)
            old = values[parameter.name]
            if rng.uniform() >= 1 / 3:
                return old
            if parameter.kind == "choice":
                return parameter.draw(rng)
            return parameter.at(float(np.clip(parameter.share(old) + rng.normal(0, step), 0, 1)))

        return self._fill(value)

    def encode(self, values: Mapping[str, Any]) -> Array:
        """Return a point as numbers `(d,)`: numbers as shares, choices as indicators.

        Two points that differ in a choice are as far apart as the ends of a number's way. What does
        not exist is 0.
        """
        out: list[float] = []
        for parameter in self.parameters:
            there = parameter.name in values
            if parameter.kind == "choice":
                held = values.get(parameter.name)
                out += [0.5**0.5 * (there and value == held) for value in parameter.values]
            else:
                out.append(parameter.share(values[parameter.name]) if there else 0.0)
        return np.array(out)

    def _fill(self, value: Any) -> Json:
        held: Json = {}
        for parameter in self.parameters:
            if parameter.exists(held):
                held[parameter.name] = value(parameter)
        return held


def key_of(values: Mapping[str, Any]) -> str:
    """Return a text that names a point, whatever the order of its parameters."""
    return json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)
