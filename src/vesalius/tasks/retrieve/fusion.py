# SPDX-License-Identifier: Apache-2.0
"""Several rankings of the same cases made one, by the ranks alone.

Reciprocal rank fusion: Cormack, Clarke, Buettcher, "Reciprocal rank fusion outperforms Condorcet
and individual rank learning methods", SIGIR 2009. Cosines and BM25 have no common scale; ranks do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vesalius.errors import UsageError

CONSTANT = 60  # of the paper: how little the very first ranks stand out


def reciprocal_ranks(
    rankings: Sequence[Mapping[str, float]], weights: Sequence[float]
) -> dict[str, float]:
    """Return case -> fused score in 0 to 1: 1 for what leads every ranking that has a weight.

    A case that a ranking lacks gets nothing from it, so that a case without words can still be
    found by its image. Cases of equal score share the better rank.

    Args:
        rankings: case -> score, the higher the better; empty where nothing was asked or found.
        weights: one a ranking, none negative.

    Raises:
        UsageError: a negative weight, or none above zero.
    """
    if min(weights, default=0.0) < 0 or sum(weights) <= 0:
        raise UsageError(f"weights must be 0 or more and not all 0, got {list(weights)}")
    most = sum(weights) / (CONSTANT + 1)
    fused: dict[str, float] = {}
    for scores, weight in zip(rankings, weights, strict=True):
        for case, rank in ranks(scores).items():
            fused[case] = fused.get(case, 0.0) + weight / (CONSTANT + rank) / most
    return fused


def ranks(scores: Mapping[str, float]) -> dict[str, int]:
    """Return case -> rank from 1; equal scores share the better rank."""
    found: dict[str, int] = {}
    rank, before = 0, None
    for place, (case, score) in enumerate(ordered(scores), 1):
        if score != before:
            rank, before = place, score
        found[case] = rank
    return found


def ordered(scores: Mapping[str, float]) -> list[tuple[str, float]]:
    """Return cases and scores, the best first, equal ones by their key."""
    return sorted(scores.items(), key=lambda item: (-item[1], item[0]))
