# SPDX-License-Identifier: Apache-2.0
"""Whole groups shared out among subsets so that each keeps its part of every label."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

BINS = 5  # of a measured (continuous) target
_MOST_CLASSES = 20  # a number with more distinct values than this is measured, not a class

Strata = tuple[tuple[str, Hashable], ...]  # what one row counts toward: (label, class)


def strata(values: Sequence[Any], name: str = "") -> list[Strata]:
    """Return what each row counts toward: its class, or the fifth that its number falls into.

    Null, empty text and NaN count toward nothing. Numbers with more than 20 distinct values, or
    fractional ones, are cut at the quintiles of the distinct values' rows.
    """
    known = [v is not None and v != "" and v == v for v in values]
    present = [value for value, is_known in zip(values, known, strict=True) if is_known]
    numeric = present and all(isinstance(v, (int, float)) for v in present)
    distinct = set(present)
    fractional = numeric and any(float(v) != int(v) for v in distinct)
    if numeric and (fractional or len(distinct) > _MOST_CLASSES) and len(distinct) > 2:
        edges = np.unique(np.quantile(np.array(present, float), np.arange(1, BINS) / BINS))
        return [
            ((name, int(np.searchsorted(edges, float(value), side="right"))),) if is_known else ()
            for value, is_known in zip(values, known, strict=True)
        ]
    return [
        ((name, value),) if is_known else () for value, is_known in zip(values, known, strict=True)
    ]


def share_out(
    groups: Mapping[str, Sequence[Strata]], fractions: Mapping[str, float], seed: int
) -> dict[str, str]:
    """Return the subset of each group.

    Args:
        groups: name of the group to what each of its rows counts toward.
        fractions: subset to its part; parts are positive and scaled to sum to 1.
        seed: breaks ties; with the group names alone it decides, never the order of the mapping.

    Groups are taken from the most decisive (largest share of some label) to the least, and each
    goes where it lowers most the sum over labels, rows and groups of (held - wanted)^2 / wanted,
    in parts of the label's total. This is the iterative stratification of Sechidis, Tsoumakas and
    Vlahavas ("On the stratification of multi-label data", ECML PKDD 2011) with groups in place
    of rows. Every subset gets a group while there are enough of them.
    """
    subsets = list(fractions)
    wanted = np.array([fractions[name] for name in subsets], float)
    wanted /= wanted.sum()
    names = sorted(groups, key=lambda name: _draw(seed, name))
    counted = {name: _count(groups[name]) for name in names}
    kinds = sorted({kind for counts in counted.values() for kind in counts}, key=repr)
    place = {kind: n for n, kind in enumerate(kinds)}
    totals = np.zeros(len(kinds))
    for counts in counted.values():
        for kind, count in counts.items():
            totals[place[kind]] += count
    vectors = {
        name: (
            np.array([place[kind] for kind in counts]),
            np.array(list(counts.values()), float) / totals[[place[kind] for kind in counts]],
        )
        for name, counts in counted.items()
    }
    names.sort(key=lambda name: -float(vectors[name][1].max()))  # stable: ties stay drawn
    held = np.zeros((len(subsets), len(kinds)))
    chosen: dict[str, int] = {}
    empty = set(range(len(subsets)))
    for position, name in enumerate(names):
        where, share = vectors[name]
        lack = held[:, where] - wanted[:, None]
        cost = (share * (2 * lack + share)).sum(axis=1) / wanted
        if len(names) - position <= len(empty):  # the rest must go to subsets without a group
            cost[[n for n in range(len(subsets)) if n not in empty]] = np.inf
        best = int(np.argmin(cost))
        held[best, where] += share
        empty.discard(best)
        chosen[name] = best
    return {name: subsets[n] for name, n in chosen.items()}


def _count(rows: Sequence[Strata]) -> Counter[Hashable]:
    counts: Counter[Hashable] = Counter(kind for row in rows for kind in row)
    counts["rows"] = len(rows)
    counts["groups"] = 1
    return counts


def _draw(seed: int, name: str) -> bytes:
    return hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest()
