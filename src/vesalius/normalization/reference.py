# SPDX-License-Identifier: Apache-2.0
"""What normalized series of a cohort look like: streaming, mergeable, the same on many machines.

A reference keeps, for each group (modality and unit), counts and sums of the mean, of the standard
deviation and of the histogram in the region that was not used for fitting. Sums are whole numbers
in fixed point, so that order and partition do not change a bit of them. A new series agrees when
its mean and standard deviation lie in the 95 % prediction interval of the group,
mean ± t(n - 1) * s * sqrt(1 + 1/n) (Hahn & Meeker, Statistical Intervals, 1991).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import sqrt
from typing import Self

import numpy as np

from vesalius.errors import RunError
from vesalius.types import Array, Json

_POINT = 1 << 40
LEVEL = 0.95
FEWEST = 5  # series that a group needs before it can judge another


@dataclass(slots=True)
class Group:
    """Sums over the series of one modality and unit; see the module."""

    count: int = 0
    mean: int = 0
    mean_square: int = 0
    sd: int = 0
    sd_square: int = 0
    histogram: list[int] = field(default_factory=list)

    def merge(self, other: Group) -> None:
        """Take in the series of another."""
        for name in ("count", "mean", "mean_square", "sd", "sd_square"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        if not self.histogram:
            self.histogram = [0] * len(other.histogram)
        if other.histogram:
            self.histogram = [a + b for a, b in zip(self.histogram, other.histogram, strict=True)]

    def interval(self, what: str, level: float = LEVEL) -> tuple[float, float] | None:
        """Return where the `mean` or `sd` of a further series lies; None below `FEWEST` series."""
        if self.count < FEWEST:
            return None
        from scipy.special import stdtrit

        middle = getattr(self, what) / _POINT / self.count
        square = getattr(self, f"{what}_square") / _POINT / self.count
        spread = sqrt(max(0.0, square - middle**2) * self.count / (self.count - 1))
        reach = float(stdtrit(self.count - 1, 0.5 + level / 2)) * spread
        reach *= sqrt(1 + 1 / self.count)
        return middle - reach, middle + reach

    def shares(self) -> Array:
        """Return the mean histogram of the series, shares that add up to 1."""
        return np.asarray(self.histogram, np.float64) / max(1, sum(self.histogram))


@dataclass(slots=True)
class Reference:
    """Groups by name; `add` and `merge` in any order give the same record."""

    groups: dict[str, Group] = field(default_factory=dict)

    def add(self, group: str, *, mean: float, sd: float, shares: Array) -> None:
        """Take in one series: mean, standard deviation and histogram (shares) of its region."""
        one = Group(
            1,
            round(mean * _POINT),
            round(mean * mean * _POINT),
            round(sd * _POINT),
            round(sd * sd * _POINT),
            [round(float(share) * _POINT) for share in shares],
        )
        self.groups.setdefault(group, Group()).merge(one)

    def merge(self, other: Reference) -> None:
        """Take in the series of another."""
        for name, group in other.groups.items():
            self.groups.setdefault(name, Group()).merge(group)

    def to_json(self) -> Json:
        """Return the record, groups in order."""
        return {
            name: {
                "count": group.count,
                "mean": group.mean,
                "mean_square": group.mean_square,
                "sd": group.sd,
                "sd_square": group.sd_square,
                "histogram": group.histogram,
            }
            for name, group in sorted(self.groups.items())
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Json]) -> Self:
        """Return the reference of a saved record."""
        try:
            return cls({name: Group(**entry) for name, entry in record.items()})
        except TypeError as error:
            raise RunError(
                f"the reference of normalized series cannot be read ({error}); make it again with "
                "`vesalius normalize`"
            ) from error
