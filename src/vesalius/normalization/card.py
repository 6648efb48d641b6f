# SPDX-License-Identifier: Apache-2.0
"""What a method says of itself: name, formula, source, and the laws that it is tested for."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from vesalius.types import Json


class Law(StrEnum):
    """Properties that a method may declare; each declared one is a property test."""

    AFFINE_INVARIANT = "affine-invariant"  # a * x + b with a > 0 gives the same result as x
    SCALE_INVARIANT = "scale-invariant"  # a * x with a > 0 gives the same result as x
    IDEMPOTENT = "idempotent"  # applied to its own result it changes nothing
    ORDER_PRESERVING = "order-preserving"  # x <= y stays so
    INVERTIBLE = "invertible"  # the values can be brought back from the record
    UNIT_SD = "unit-sd"  # standard deviation 1 in the fitting mask


class Kind(StrEnum):
    """What a method works on."""

    INTENSITY = "intensity"  # solves one curve a channel from the values in a mask
    SPATIAL = "spatial"  # needs the grid: bias fields, slices
    STAIN = "stain"  # red, green, blue of stained slides
    TABLE = "table"  # rows of features, or co-registered voxels


@dataclass(frozen=True, slots=True)
class Card:
    """One line of `vesalius normalize --list`.

    Attributes:
        name: of the method, as `--method` takes it.
        title: a few words.
        formula: in plain text, x the value that comes in, y the one that goes out.
        source: paper or standard.
        kind: what it works on.
        laws: what it declares.
        fitted: whether it must first be fitted on training images.
    """

    name: str
    title: str
    formula: str
    source: str
    kind: Kind = Kind.INTENSITY
    laws: frozenset[Law] = frozenset()
    fitted: bool = False

    def to_json(self) -> Json:
        """Return all of it, for machines."""
        return {
            "name": self.name,
            "title": self.title,
            "formula": self.formula,
            "source": self.source,
            "kind": str(self.kind),
            "laws": sorted(map(str, self.laws)),
            "fitted": self.fitted,
        }
