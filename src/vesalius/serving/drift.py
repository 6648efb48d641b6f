# SPDX-License-Identifier: Apache-2.0
"""Whether recent studies are other than those of a reference: statistics, and the alarm rule.

Numbers (intensities, spacings, volumes, probabilities) are compared by the two-sample
Kolmogorov-Smirnov test, events (refused, a class was answered) by Fisher's exact test, both by the
population stability index (PSI), the symmetric Kullback-Leibler divergence over bins (Siddiqi,
Credit Risk Scorecards, 2006; Yurdakul & Naranjo, J Risk Model Validation 14(4), 2020).

**The rule.** An alarm is raised where the p-value, corrected for the number of facts by Holm's
method (Scand J Stat 6:65-70, 1979), is below `ALPHA` **and** the PSI is at least `LEAST_PSI`: a
difference has to be certain and large. In windows of studies like the reference the chance of any
alarm is then at most `ALPHA` a look, whatever the facts are and however they depend on each other.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from vesalius.types import Json

ALPHA = 0.01
LEAST_PSI = 0.25  # what is called a major shift
_BINS = 5
_FEWEST = 20  # values on each side, without which a fact is not compared

Facts = Mapping[str, float | bool]  # of one study: numbers, and events as booleans


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """How one fact of recent studies compares with the reference.

    Attributes:
        fact: name.
        psi: population stability index.
        p: of the test, corrected for the number of facts.
        reference, recent: median of a number, rate of an event.
        n: recent values.
        alarm: whether the rule is met.
    """

    fact: str
    psi: float
    p: float
    reference: float
    recent: float
    n: int
    alarm: bool

    def to_json(self) -> Json:
        """Return it for machines."""
        return {
            "fact": self.fact,
            "psi": round(self.psi, 4),
            "p": self.p,
            "reference": self.reference,
            "recent": self.recent,
            "n": self.n,
            "alarm": self.alarm,
        }


def compare(
    reference: Sequence[Facts],
    recent: Sequence[Facts],
    *,
    given: Mapping[str, Sequence[float]] | None = None,
) -> list[Finding]:
    """Compare recent studies with those of a reference, fact by fact, alarms first.

    Args:
        reference: facts of each study.
        recent: likewise.
        given: fact -> values that stand for the reference's, where they are known otherwise.

    Facts of which either side has fewer than 20 values are left out.
    """
    raw: list[tuple[str, float, float, list[float], list[float], bool]] = []
    for fact in sorted({name for one in recent for name in one}):
        known = (given or {}).get(fact)
        first = list(known) if known is not None else _values(reference, fact)
        second = _values(recent, fact)
        if min(len(first), len(second)) < _FEWEST:
            continue
        event = all(isinstance(one[fact], bool) for one in recent if fact in one)
        p = fisher(first, second) if event else kolmogorov_smirnov(first, second)
        raw.append((fact, psi(first, second, event=event), p, first, second, event))
    corrected = holm([p for _, _, p, *_ in raw])
    found = [
        Finding(
            fact=fact,
            psi=index,
            p=p,
            reference=_middle(first, event),
            recent=_middle(second, event),
            n=len(second),
            alarm=p < ALPHA and index >= LEAST_PSI,
        )
        for (fact, index, _, first, second, event), p in zip(raw, corrected, strict=True)
    ]
    return sorted(found, key=lambda one: (not one.alarm, -one.psi))


def psi(reference: Sequence[float], recent: Sequence[float], *, event: bool = False) -> float:
    """Return the population stability index, natural logarithm.

    Bins of numbers are the reference's fifths, and a value that a fifth of the reference has is a
    bin of its own; an event has two bins. Half a value is added to each bin, so that an empty one
    gives a large index and not an infinite one.
    """
    import numpy as np

    first, second = np.asarray(reference, float), np.asarray(recent, float)
    edges = np.array([0.5])
    if not event:
        fifths = np.unique(np.quantile(first, np.arange(1, _BINS) / _BINS))
        alone = [one for one in fifths if (first == one).mean() >= 1 / _BINS]
        edges = np.unique([*fifths, *np.nextafter(alone, -np.inf)])
    shares = []
    for values in (first, second):
        counts = np.bincount(np.searchsorted(edges, values, side="left"), minlength=len(edges) + 1)
        shares.append((counts + 0.5) / (len(values) + 0.5 * len(counts)))
    return float(((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum())


def kolmogorov_smirnov(reference: Sequence[float], recent: Sequence[float]) -> float:
    """Return the p-value of the two-sample test, two-sided; ties make it larger."""
    from scipy.stats import ks_2samp

    return float(ks_2samp(reference, recent, method="auto").pvalue)


def fisher(reference: Sequence[float], recent: Sequence[float]) -> float:
    """Return the p-value of Fisher's exact test for two rates, two-sided."""
    from scipy.stats import fisher_exact

    table = [[sum(map(bool, one)), len(one) - sum(map(bool, one))] for one in (reference, recent)]
    return float(fisher_exact(table)[1])


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values that hold for all tests together, in the order given."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    out, highest = [1.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, p_values[place] * (len(p_values) - rank)))
        out[place] = highest
    return out


def _values(studies: Iterable[Facts], fact: str) -> list[float]:
    return [float(one[fact]) for one in studies if fact in one and math.isfinite(one[fact])]


def _middle(values: Sequence[float], event: bool) -> float:
    ordered = sorted(values)
    return sum(ordered) / len(ordered) if event else ordered[len(ordered) // 2]
