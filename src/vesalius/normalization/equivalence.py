# SPDX-License-Identifier: Apache-2.0
"""Are sites equivalent after normalization? Two one-sided tests of each site against the others.

TOST (Schuirmann, J. Pharmacokinet. Biopharm. 15, 1987) on the mean and the standard deviation of
the region that was not used for fitting, with Welch's degrees of freedom; as Duenweg et al. 2025
use it to compare normalizations. Equivalent means: the difference lies within the margin, p < 0.05.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import sqrt

import numpy as np

from vesalius.types import Array, Json

MARGIN = 0.2  # standard deviations of the normalized scale; Cohen's small effect
LEVEL = 0.05
FEWEST = 3  # series of a site


@dataclass(frozen=True, slots=True)
class Equivalence:
    """One site (or scanner) against all others.

    Attributes:
        site: its name.
        what: `mean` or `sd`.
        n, others: series of the site, and of the others.
        difference: of the averages, site minus others.
        margin: what counts as no difference.
        p: the larger of the two one-sided p-values; None where too few series are there.
        equivalent: whether p < 0.05; None likewise.
    """

    site: str
    what: str
    n: int
    others: int
    difference: float | None
    margin: float
    p: float | None
    equivalent: bool | None

    def to_json(self) -> Json:
        """Return the record."""
        return asdict(self)


def site_equivalence(
    sites: Sequence[str],
    means: Sequence[float],
    sds: Sequence[float],
    *,
    margin: float = MARGIN,
) -> list[Equivalence]:
    """Return two rows for every named site; nothing where fewer than two sites are named."""
    places: dict[str, list[int]] = defaultdict(list)
    for place, site in enumerate(sites):
        if site:
            places[site].append(place)
    if len(places) < 2:
        return []
    named = sorted(place for members in places.values() for place in members)
    out = []
    for site, members in sorted(places.items()):
        rest = [place for place in named if place not in set(members)]
        for what, values in (("mean", np.asarray(means)), ("sd", np.asarray(sds))):
            out.append(_test(site, what, values[members], values[rest], margin))
    return out


def _test(site: str, what: str, own: Array, rest: Array, margin: float) -> Equivalence:
    if len(own) < FEWEST or len(rest) < FEWEST:
        return Equivalence(site, what, len(own), len(rest), None, margin, None, None)
    from scipy.special import stdtr

    difference = float(own.mean() - rest.mean())
    parts = [float(side.var(ddof=1)) / len(side) for side in (own, rest)]
    error = sqrt(sum(parts))
    if error == 0:
        p = 0.0 if abs(difference) < margin else 1.0
    else:
        freedom = sum(parts) ** 2 / sum(
            part**2 / (len(side) - 1) for part, side in zip(parts, (own, rest), strict=True)
        )
        p = max(
            float(stdtr(freedom, (difference - margin) / error)),
            float(stdtr(freedom, (-difference - margin) / error)),
        )
    return Equivalence(site, what, len(own), len(rest), difference, margin, p, p < LEVEL)
