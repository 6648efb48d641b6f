# SPDX-License-Identifier: Apache-2.0
"""The outlier score equals an independent computation, keeps its promise and sees other images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from sklearn.covariance import LedoitWolf
from sklearn.metrics import roc_auc_score

from vesalius.errors import DataError, UsageError
from vesalius.tasks.classify import outliers
from vesalius.tasks.classify.outliers import OutlierScore


def draw(n: int, d: int = 24, seed: int = 0, shift: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    """Return embeddings `(n, d)` float32 of two classes in a few directions, and the classes."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    base = rng.normal(0, 1, (n, d)) * np.linspace(2, 0.1, d) + 4
    base[:, 0] += shift * labels
    return base.astype(np.float32), labels


@pytest.mark.parametrize(("n", "d"), [(200, 24), (30, 60)])
@pytest.mark.parametrize("known", [False, True])
def test_it_is_the_ledoit_wolf_distance_to_the_nearest_mean(n, d, known) -> None:
    table, labels = draw(n, d)
    fresh, _ = draw(40, d, seed=1)
    found = OutlierScore.fit(table, labels if known else None).score(fresh)
    unit, new = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (table, fresh))
    group = labels if known else np.zeros(n, int)
    means = np.stack([unit[group == g].mean(0) for g in np.unique(group)])
    model = LedoitWolf(assume_centered=True).fit(unit - means[group])
    squares = [np.einsum("ni,ij,nj->n", new - m, model.precision_, new - m) for m in means]
    np.testing.assert_allclose(found, np.sqrt(np.min(squares, axis=0)), rtol=1e-3)


def test_few_components_keep_most_of_the_order(monkeypatch) -> None:
    table, _ = draw(300)
    fresh, _ = draw(300, seed=1)
    whole = OutlierScore.fit(table)
    monkeypatch.setattr(outliers, "COMPONENTS", 8)
    part = OutlierScore.fit(table)
    assert part.axes.shape == (8, 24)
    np.testing.assert_allclose(part.axes @ part.axes.T, np.eye(8), atol=1e-5)
    assert np.corrcoef(whole.score(fresh), part.score(fresh))[0, 1] > 0.3
    far = fresh + 8 * (np.arange(24) == 20)  # along a direction that is left out
    assert part.score(far).min() > np.median(part.score(fresh))


def test_the_share_refused_is_the_share_promised() -> None:
    table, labels = draw(300)
    score = OutlierScore.fit(table, labels)
    shares = []
    for seed in range(40):
        rows, _ = draw(400, seed=seed + 1)
        fitted = score.calibrate(rows[:200], refused=0.05)
        shares.append(fitted.refuse(rows[200:]).mean())
    assert np.mean(shares) == pytest.approx(0.05, abs=0.01)
    assert fitted.note == ""
    assert fitted.n_calibration == 200


def test_few_calibration_rows_extrapolate_and_say_so() -> None:
    table, _ = draw(300)
    score, shares = OutlierScore.fit(table), []
    for seed in range(60):
        rows, _ = draw(420, seed=seed + 1)
        fitted = score.calibrate(rows[:20])
        assert "20 calibration rows are too few" in fitted.note
        assert fitted.threshold >= score.score(rows[:20]).max()
        shares.append(fitted.refuse(rows[20:]).mean())
    assert 0.002 < np.mean(shares) < 0.03
    same = score.calibrate(np.tile(table[:1], (5, 1)))
    assert same.threshold == pytest.approx(score.score(table[:1])[0])


def test_other_rows_are_refused() -> None:
    table, labels = draw(400)
    score = OutlierScore.fit(table[:200], labels[:200]).calibrate(table[200:])
    rng = np.random.default_rng(9)
    other = rng.normal(0, 1, (100, 24)).astype(np.float32)
    assert score.refuse(other).mean() > 0.95
    held = score.refuse(np.array([[np.nan] * 24, [np.inf] * 24, table[0]]))
    assert held.tolist() == [True, True, False]
    assert np.isfinite(score.score(np.zeros((1, 24)))).all()


def test_order_length_and_batch_do_not_matter() -> None:
    table, labels = draw(200)
    fresh, _ = draw(20, seed=1)
    found = OutlierScore.fit(table, labels).score(fresh)
    order = np.random.default_rng(0).permutation(200)
    length = np.random.default_rng(1).uniform(0.1, 10, (200, 1))
    again = OutlierScore.fit(table[order] * length, labels[order])
    np.testing.assert_allclose(again.score(fresh * length[:20]), found, rtol=1e-3)
    single = OutlierScore.fit(table, labels)
    np.testing.assert_allclose(np.concatenate([single.score(r[None]) for r in fresh]), found)


def test_rows_that_do_not_vary_and_rows_beyond_the_limit(monkeypatch) -> None:
    constant = np.ones((5, 4), np.float32)
    score = OutlierScore.fit(constant)
    assert score.score(constant).max() < score.score(np.eye(4)).min()
    monkeypatch.setattr(outliers, "ROWS", 50)
    table, _ = draw(200)
    one, two = OutlierScore.fit(table, seed=1), OutlierScore.fit(table, seed=1)
    assert one.n == 50
    assert (one.means == two.means).all()
    assert (OutlierScore.fit(table, seed=2).means != one.means).any()


def test_it_is_kept_in_safetensors_and_json(tmp_path: Path) -> None:
    table, labels = draw(200)
    score = OutlierScore.fit(table, labels).calibrate(table)
    assert {a.dtype for a in score.arrays().values()} == {np.dtype(np.float32)}
    save_file({k: np.ascontiguousarray(a) for k, a in score.arrays().items()}, tmp_path / "a")
    held = json.loads(json.dumps(score.to_json(), allow_nan=False))
    again = OutlierScore.from_json(held, load_file(tmp_path / "a"))
    assert (again.score(table) == score.score(table)).all()
    assert (again.refuse(table) == score.refuse(table)).all()


def test_bad_arguments_are_named() -> None:
    table, labels = draw(50)
    score = OutlierScore.fit(table)
    with pytest.raises(UsageError, match="labels must be 50"):
        OutlierScore.fit(table, labels[:3])
    with pytest.raises(UsageError, match=r"\(n, features\)"):
        OutlierScore.fit(table[0])
    with pytest.raises(DataError, match="got 1 rows"):
        OutlierScore.fit(table[:1])
    with pytest.raises(DataError, match="49 of them finite"):
        OutlierScore.fit(np.where(np.arange(50)[:, None] == 3, np.nan, table))
    with pytest.raises(UsageError, match="24 features, got 3"):
        score.score(table[:, :3])
    with pytest.raises(UsageError, match=r"calibrate\(\) first"):
        score.refuse(table)
    with pytest.raises(UsageError, match="refused must be above 0"):
        score.calibrate(table, refused=1.0)
    with pytest.raises(DataError, match="2 finite calibration rows, got 1"):
        score.calibrate(table[:1])


def test_pixels_of_real_images_tell_other_kinds_of_image(data) -> None:
    def pixels(name: str, subset: str) -> np.ndarray:
        with np.load(data("medmnist") / f"{name}.npz") as held:
            images = held[f"{subset}_images"][:300].astype(np.float32)
        return (images.mean(-1) if images.ndim == 4 else images).reshape(len(images), -1)

    names = ["pneumoniamnist", "retinamnist", "breastmnist"]
    noise = np.random.default_rng(0).integers(0, 256, (100, 784))
    for own in names[:2]:
        score = OutlierScore.fit(pixels(own, "train"))
        inside = score.score(pixels(own, "val"))
        for other in [*(pixels(name, "val") for name in names if name != own), noise]:
            outside = score.score(other)
            truth = np.repeat([0, 1], [len(inside), len(outside)])
            assert roc_auc_score(truth, np.concatenate([inside, outside])) > 0.98
