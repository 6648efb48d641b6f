# SPDX-License-Identifier: Apache-2.0
"""The largest piece of a structure, and when keeping it alone is better than chance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vesalius.errors import RunError
from vesalius.tasks.segment.largest_choice import choose
from vesalius.tasks.segment.largest_piece import FILE, keep_largest, kept_labels
from vesalius.volume import LabelMap


def by_hand(mask: np.ndarray) -> np.ndarray:
    """The largest set of voxels that touch, by flooding."""
    left, best = {tuple(v) for v in np.argwhere(mask)}, set()
    order = sorted(left)
    while left:
        start = next(v for v in order if v in left)
        piece, front = set(), {start}
        while front:
            piece |= front
            around = {
                (a + i, b + j, c + k)
                for a, b, c in front
                for i in (-1, 0, 1)
                for j in (-1, 0, 1)
                for k in (-1, 0, 1)
            }
            front = (around & left) - piece
        left -= piece
        if len(piece) > len(best):
            best = piece
    out = np.zeros(mask.shape, bool)
    for voxel in best:
        out[voxel] = True
    return out


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 10_000),
    st.floats(0.02, 0.3),
    st.tuples(st.integers(1, 7), st.integers(1, 7), st.integers(1, 4)),
    st.integers(1, 2),
)
def test_it_is_what_flooding_finds_and_others_are_untouched(seed, share, shape, layers) -> None:
    rng = np.random.default_rng(seed)
    data = np.zeros((layers, *shape), np.int32)
    if layers == 1:
        data[0] = rng.choice([0, 3, 300], size=shape, p=[1 - share, share / 2, share / 2])
    else:
        data[0], data[1] = (v * (rng.random(shape) < share) for v in (3, 300))
    found = LabelMap(data.copy(), np.eye(4))
    keep_largest(found, [3, 9])
    assert ((found.data == 300) == (data == 300)).all()
    expected = by_hand((data == 3).any(0))
    assert ((found.data == 3).any(0) == expected).all()
    again = LabelMap(found.data.copy(), np.eye(4))
    keep_largest(again, [3])
    assert (again.data == found.data).all()


def test_nothing_asked_nothing_changed() -> None:
    data = (np.random.default_rng(0).random((1, 9, 9, 9)) < 0.2).astype(np.uint8)
    found = LabelMap(data.copy(), np.eye(4))
    keep_largest(found, [])
    assert (found.data == data).all()


def kept(*gains: float, patients: list[str] | None = None) -> bool:
    patients = patients or [str(n) for n in range(len(gains))]
    (one,) = choose({"liver": gains}, patients)
    assert one["patients"] == len(set(patients))
    return bool(one["kept"])


def test_it_must_be_better_more_often_than_chance_and_on_the_mean() -> None:
    assert kept(*[0.01] * 5)
    assert kept(*[0.01] * 5, *[0.0] * 50)
    assert not kept(*[0.01] * 4)
    assert not kept(0.5, *[0.0] * 30)  # a large gain of one patient
    assert not kept(*[0.01] * 6, -0.2)  # lost on the mean
    assert not kept(*[0.01] * 6, *[-0.001] * 4)  # better in 6 of 10
    assert not kept(*[0.0] * 9)
    assert not kept()


def test_a_patient_counts_once() -> None:
    assert not kept(*[0.01] * 8, patients=["a"] * 7 + ["b"])
    assert kept(*[0.01] * 10, patients=list("aabbccddee"))


def test_the_record_names_what_is_kept_and_an_older_run_keeps_all(tmp_path: Path) -> None:
    assert kept_labels(tmp_path) == []
    text = '{"largest_piece": [{"label": "a", "kept": true}, {"label": "b", "kept": false}]}'
    (tmp_path / FILE).write_text(text)
    assert kept_labels(tmp_path) == ["a"]
    (tmp_path / FILE).write_text("{")
    with pytest.raises(RunError, match="evaluate --split val"):
        kept_labels(tmp_path)
