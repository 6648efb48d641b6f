# SPDX-License-Identifier: Apache-2.0
"""What a segmenter expects of itself, and how that becomes a Dice score and a flag."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vesalius.errors import RunError
from vesalius.tasks.run import Run
from vesalius.tasks.segment.doubt import Doubt
from vesalius.tasks.segment.quality import FEWEST, LEVEL, Quality, fit_quality, on_one_level
from vesalius.tasks.segment.scoring import load_quality


def logits(seed: int, scale: float, shape: tuple[int, int, int] = (6, 5, 4)) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, *shape, generator=generator) * scale


def by_hand(values: torch.Tensor) -> np.ndarray:
    p = torch.softmax(values.double(), 0).numpy()
    chosen = p.argmax(0)
    scores = []
    for index in range(1, len(p)):
        inside = chosen == index
        if inside.any():
            scores.append(2 * p[index][inside].sum() / (p[index].sum() + inside.sum()))
        else:
            scores.append(1 - p[index].max())
    return np.array(scores)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 99), scale=st.floats(0.1, 9.0), cut=st.integers(1, 5))
def test_blocks_that_share_a_plane_count_it_once(seed: int, scale: float, cut: int) -> None:
    values = logits(seed, scale)
    doubt = Doubt(3)
    doubt.take(values[:, :cut], (0, 0, 0))
    doubt.take(values[:, cut - 1 :], (cut - 1, 0, 0) if cut > 1 else (0, 0, 0))
    if cut > 1:  # with one plane the second block begins at the first, which is then new
        np.testing.assert_allclose(doubt.expected_dice(), by_hand(values), atol=1e-5)
    whole = Doubt(3)
    whole.take(values, (0, 0, 0))
    np.testing.assert_allclose(whole.expected_dice(), by_hand(values), atol=1e-5)


def test_a_sure_network_expects_one_and_a_vague_one_less() -> None:
    sure, vague = Doubt(3), Doubt(3)
    sure.take(logits(0, 100.0), (0, 0, 0))
    vague.take(logits(0, 1.0), (0, 0, 0))
    assert (sure.expected_dice() > 0.98).all()
    assert (vague.expected_dice() < 0.8).all()


def test_a_structure_that_is_nowhere_has_the_certainty_of_its_absence() -> None:
    values = torch.zeros(3, 4, 4, 4)
    values[0] = 9.0
    values[2, 1, 1, 1] = 8.0  # nearly there, in one voxel
    doubt = Doubt(3)
    doubt.take(values, (0, 0, 0))
    nowhere, nearly = doubt.expected_dice()
    assert nowhere > 0.999
    assert nearly == pytest.approx(1 - 1 / (1 + np.exp(1) + np.exp(-8)), abs=1e-3)


def test_the_line_is_found_in_spite_of_an_odd_image() -> None:
    x = np.linspace(0.6, 0.95, 20)
    y = 0.1 + 0.8 * x
    y[3] = 0.0
    line = Quality.fit(x.tolist(), y.tolist())
    assert line.slope == pytest.approx(0.8, abs=0.02)
    assert line.predict(0.9) == pytest.approx(0.82, abs=0.01)
    assert line.n == 20
    assert line.lowest == pytest.approx(0.6)


def test_few_images_or_none_that_differ_leave_no_line() -> None:
    few = Quality.fit([0.8] * (FEWEST - 1), [0.5] * (FEWEST - 1))
    assert few == Quality()
    assert few.predict(0.8) == pytest.approx(0.8)
    flat = Quality.fit([0.8] * 10, [0.5] * 10)
    assert flat.predict(0.3) == pytest.approx(0.5)
    falling = Quality.fit(np.linspace(0.5, 0.9, 10).tolist(), np.linspace(0.9, 0.5, 10).tolist())
    assert falling.slope == 0


def test_what_is_poor_or_strange_is_flagged_with_the_reason() -> None:
    line = Quality(0.0, 1.0, 0.05, 0.85, 12)
    assert line.doubts("liver", 0.9) == ""
    assert "liver: less sure than in any of 12" in line.doubts("liver", 0.8)
    assert f"below {LEVEL:g}" in line.doubts("liver", 0.6)


def test_each_structure_has_its_own_line() -> None:
    expected = np.column_stack([np.linspace(0.5, 0.9, 12), np.linspace(0.5, 0.9, 12)])
    dice = np.column_stack([expected[:, 0], 0.5 * expected[:, 1]])
    first, second = fit_quality(expected, dice)
    assert first.slope == pytest.approx(1.0)
    assert second.slope == pytest.approx(0.5)
    assert Quality(**second.to_json()) == second


def test_a_run_without_lines_says_how_to_get_them(tmp_path: Path) -> None:
    run = Run(tmp_path, {"task": "segment"})
    with pytest.raises(RunError, match=r"quality\.json; `vesalius evaluate --split val`"):
        load_quality(run)
    (tmp_path / "quality.json").write_text(f"[{json.dumps(Quality(0.1, 0.8).to_json())}]")
    assert load_quality(run) == [Quality(0.1, 0.8)]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 999), st.lists(st.floats(-0.3, 0.3), min_size=3, max_size=3))
def test_folds_come_to_one_level_however_sure_their_networks_are(seed, shifts) -> None:
    rng = np.random.default_rng(seed)
    folds = np.repeat([0, 1, 2], 9)
    expected = rng.uniform(0.4, 0.6, (27, 2))
    moved = on_one_level(expected + np.array(shifts)[folds, None], folds.tolist())
    plain = on_one_level(expected, folds.tolist())
    np.testing.assert_allclose(moved, plain + np.mean(shifts))
    medians = np.array([np.median(moved[folds == n], axis=0) for n in range(3)])
    np.testing.assert_allclose(medians, np.broadcast_to(medians[0], (3, 2)))
    within = np.diff(moved[:9], axis=0)
    np.testing.assert_allclose(within, np.diff(expected[:9], axis=0))
