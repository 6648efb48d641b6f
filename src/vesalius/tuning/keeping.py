# SPDX-License-Identifier: Apache-2.0
"""What of the trials' weights stays on disk: the front and the best, within a budget of bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vesalius.tuning.pareto import front
from vesalius.tuning.trial import Objective, Trial, rank

BEST = 10  # trials whose weights are kept beside the front


def to_drop(
    trials: Sequence[Trial],
    objectives: Sequence[Objective],
    sizes: Mapping[int, int],
    *,
    disk: int | None,
    best: int = BEST,
) -> list[int]:
    """Return the numbers of the trials whose weights are to go, the least worth first.

    The best trial keeps its weights whatever they take.

    Args:
        trials: all of the search.
        objectives: of the search.
        sizes: trial number -> bytes that its weights take; of those that still have them.
        disk: bytes for all of them; None for no bound.
        best: how many are kept beside the front.
    """
    ranked = [trial.number for trial in rank(trials, objectives)]
    held = [trial.number for trial in front(trials, objectives)]
    worth = [n for n in ranked[:1] if n in sizes]
    worth += [n for n in held if n in sizes and n not in worth]
    others = [n for n in ranked if n in sizes and n not in worth]
    kept = worth + others[:best]
    gone = [n for n in sizes if n not in kept]
    total = sum(sizes[n] for n in kept)
    while disk is not None and total > disk and len(kept) > 1:
        total -= sizes[kept[-1]]
        gone.append(kept.pop())
    return gone
