# SPDX-License-Identifier: Apache-2.0
"""Masks that contradict a sure answer are named; hard images and usual errors are not."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vesalius.tasks.segment.suspects import LEAST_GAP, MOST, suspect_masks


def row(key: str, predicted: float | None, dice: float | None, *, failed: bool = False) -> dict:
    return {"key": key, "failed": failed, "predicted_dice_liver": predicted, "dice_liver": dice}


def usual(n: int, seed: int = 0) -> list[dict]:
    rng = np.random.default_rng(seed)
    dice = rng.uniform(0.85, 0.95, n)
    return [row(f"u{k}", d + e, d) for k, (d, e) in enumerate(
        zip(dice, rng.normal(0, 0.02, n), strict=True))]  # fmt: skip


def test_a_mask_beside_its_structure_is_named_and_a_hard_image_is_not() -> None:
    rows = [
        *usual(30),
        row("shifted", 0.93, 0.4),
        row("forgotten", 0.98, 0.0),
        row("hard", 0.45, 0.1),  # the network was not sure either
        row("a little off", 0.9, 0.7),
        row("unread", None, 0.0, failed=True),
    ]
    found = suspect_masks(rows, ["liver"])
    assert [one["key"] for one in found] == ["forgotten", "shifted"]
    assert found[1] == {"key": "shifted", "label": "liver", "predicted": 0.93, "dice": 0.4}


def test_where_the_expectation_is_poor_for_all_nothing_stands_out() -> None:
    rng = np.random.default_rng(1)
    rows = [row(f"k{k}", 0.9, float(d)) for k, d in enumerate(rng.uniform(0.2, 0.9, 40))]
    assert suspect_masks(rows, ["liver"]) == []


def test_a_label_that_no_image_has_and_an_empty_table_give_nothing() -> None:
    assert suspect_masks([], ["liver"]) == []
    assert suspect_masks([row("a", 0.9, None)], ["liver"]) == []


@given(gaps=st.lists(st.floats(0, 0.9), min_size=1, max_size=80), seed=st.integers(0, 99))
def test_what_is_named_is_sure_and_contradicted_the_largest_first(
    gaps: list[float], seed: int
) -> None:
    rows = usual(20, seed) + [row(f"x{k}", 0.95, 0.95 - gap) for k, gap in enumerate(gaps)]
    found = suspect_masks(rows, ["liver"])
    contradictions = [one["predicted"] - one["dice"] for one in found]
    assert contradictions == sorted(contradictions, reverse=True)
    assert all(gap > LEAST_GAP for gap in contradictions)
    assert len(found) <= MOST
    assert {one["key"] for one in found} <= {f"x{k}" for k in range(len(gaps))}
