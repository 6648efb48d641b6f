# SPDX-License-Identifier: Apache-2.0
"""A case as a bag of vectors, compared with a query's bag by late interaction.

MaxSim: Khattab, Zaharia, "ColBERT: efficient and effective passage search via contextualized late
interaction over BERT", SIGIR 2020. Each image of the query looks for its best match in the case;
the score is the mean of these, so that a case of many images needs no pooling and no order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vesalius.store.protocol import Near


@dataclass(frozen=True, slots=True)
class Match:
    """The best match of one image of the query in a case.

    Attributes:
        image: number of the query's image, from 0.
        key: of the case's image.
        similarity: their cosine.
    """

    image: int
    key: str
    similarity: float


@dataclass(frozen=True, slots=True)
class Bag:
    """What late interaction says of one case.

    Attributes:
        score: mean over the query's images of the best cosine in the case.
        matches: one an image of the query, in their order.
    """

    score: float
    matches: tuple[Match, ...]


def max_similarities(nears: Sequence[Near]) -> dict[str, Bag]:
    """Return case -> what late interaction says, of the cases that every list holds.

    Args:
        nears: for each image of the query the entries of the cases to compare, the nearest first.
    """
    best = [_first_of_each(near, image) for image, near in enumerate(nears)]
    shared = set.intersection(*(set(one) for one in best)) if best else set()
    return {
        case: Bag(
            sum(one[case].similarity for one in best) / len(best),
            tuple(one[case] for one in best),
        )
        for case in sorted(shared)
    }


def _first_of_each(near: Near, image: int) -> dict[str, Match]:
    """Return case -> its nearest entry."""
    found: dict[str, Match] = {}
    for key, case, similarity in zip(near.keys, near.cases, near.similarities, strict=True):
        if case not in found:
            found[case] = Match(image, key, float(similarity))
    return found
