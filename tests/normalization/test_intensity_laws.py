# SPDX-License-Identifier: Apache-2.0
"""Every intensity method of one curve a channel: the laws on its card, dtypes, verdicts, JSON."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vesalius.errors import NormalizationRefused, RunError, UsageError
from vesalius.normalization import transfer
from vesalius.normalization.card import Law
from vesalius.normalization.intensity import (
    display,
    fcm,
    kde,
    least_squares,
    nyul,
    percentile,
    quantile,
    robust,
    white_stripe,
    zscore,
)


def brain(seed: int, shape=(16, 15, 12)) -> tuple[np.ndarray, np.ndarray]:
    """Return a T1-like mixture of three tissues with air around it, and its mask."""
    rng = np.random.default_rng(seed)
    tissue = rng.choice(3, shape, p=(0.2, 0.4, 0.4))
    values = np.array([300.0, 650.0, 1000.0])[tissue] + rng.normal(0, 50, shape)
    mask = np.ones(shape, bool)
    mask[:2] = mask[:, :2] = False
    values[~mask] = rng.uniform(0, 5, shape)[~mask]
    return values, mask


def fitted(fit):
    for seed in (100, 101):
        values, mask = brain(seed)
        fit.add((seed - 99) * values, mask)
    return fit.finish()


METHODS = [
    zscore.METHOD(),
    robust.METHOD(),
    percentile.METHOD(),
    percentile.METHOD(low=2, high=98, to="zscore"),
    white_stripe.METHOD(),
    white_stripe.METHOD(contrast="t2", width=0.1),
    fcm.METHOD(),
    fcm.METHOD(tissue="csf", contrast="flair", iterations=20),
    kde.METHOD(),
    kde.METHOD(contrast="pd"),
    display.METHOD(),
    fitted(nyul.FIT()),
    fitted(least_squares.FIT()),
    fitted(quantile.FIT()),
]
SEEDS = st.integers(0, 40)


def having(law: Law):
    chosen = [method for method in METHODS if law in method.card.laws]
    return pytest.mark.parametrize("method", chosen, ids=lambda method: method.card.name)


every = pytest.mark.parametrize("method", METHODS, ids=lambda method: method.card.name)
law = settings(max_examples=12, deadline=None)


def same(one: np.ndarray, two: np.ndarray) -> None:
    np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-4 * float(np.std(two)))


def test_each_card_declares_and_lists_what_is_tested() -> None:
    laws = {method.card.name: method.card.laws for method in METHODS}
    assert len(laws) == 10
    assert laws.pop("display") == {Law.ORDER_PRESERVING}  # 8-bit values keep their brightness
    for name, declared in laws.items():
        assert {Law.IDEMPOTENT, Law.ORDER_PRESERVING} <= declared, name
        assert declared & {Law.AFFINE_INVARIANT, Law.SCALE_INVARIANT}, name
    assert {m.card.name for m in METHODS if m.card.fitted} == {"nyul", "least-squares", "quantile"}


@having(Law.AFFINE_INVARIANT)
@law
@given(SEEDS, st.floats(1e-3, 1e3), st.floats(-1e4, 1e4))
def test_gain_and_offset_change_nothing(method, seed: int, a: float, b: float) -> None:
    x, mask = brain(seed)
    x2 = a * x + b
    same(method.solve(x2, mask).apply(x2), method.solve(x, mask).apply(x))


@having(Law.SCALE_INVARIANT)
@law
@given(SEEDS, st.floats(1e-3, 1e3))
def test_gain_changes_nothing(method, seed: int, a: float) -> None:
    x, mask = brain(seed)
    same(method.solve(a * x, mask).apply(a * x), method.solve(x, mask).apply(x))


@having(Law.IDEMPOTENT)
@law
@given(SEEDS)
def test_a_second_application_changes_nothing(method, seed: int) -> None:
    x, mask = brain(seed)
    once = method.solve(x, mask).apply(x)
    same(method.solve(once, mask).apply(once), once)


@having(Law.ORDER_PRESERVING)
@law
@given(SEEDS)
def test_order_is_kept_inside_the_range_and_beyond(method, seed: int) -> None:
    x, mask = brain(seed)
    rising = method.solve(x, mask).apply(np.linspace(-5000, 9000, 4001))
    assert (np.diff(rising) >= 0).all()
    assert rising[-1] > rising[0]


@having(Law.INVERTIBLE)
@law
@given(SEEDS)
def test_values_come_back_from_the_record(method, seed: int) -> None:
    x, mask = brain(seed)
    x[4, 4, 4] = 30_000.0
    solved = method.solve(x, mask)
    back = transfer.from_json(json.loads(json.dumps(solved.to_json())))
    y = solved.apply(x)
    assert not np.allclose(y, x)
    np.testing.assert_allclose(back.inverse(y), x, rtol=1e-5, atol=0.02)


@having(Law.UNIT_SD)
@law
@given(SEEDS)
def test_the_spread_in_the_mask_is_1(method, seed: int) -> None:
    x, mask = brain(seed)
    inside = method.solve(x, mask).apply(x)[mask]
    assert inside.std() == pytest.approx(1, abs=1e-5)
    assert inside.mean() == pytest.approx(0, abs=1e-5)


@every
def test_only_the_mask_speaks_and_the_input_stays(method) -> None:
    x, mask = brain(0)
    poisoned = np.where(mask, x, np.nan)
    before = poisoned.copy()
    assert method.solve(poisoned, mask) == method.solve(x, mask)
    np.testing.assert_array_equal(poisoned, before)


@every
@pytest.mark.parametrize("dtype", ["int16", "uint16", "float16", "float32", "float64"])
def test_every_dtype_gives_the_same_float32(method, dtype: str) -> None:
    x, mask = brain(0)
    whole = np.clip(np.round(x), 0, 2000)  # exact in each of them
    got = method.solve(whole.astype(dtype), mask).apply(whole.astype(dtype))
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, method.solve(whole, mask).apply(whole))


@every
@pytest.mark.parametrize(
    ("reason", "values", "mask"),
    [
        ("empty", np.zeros((0, 3)), np.zeros((0, 3), bool)),
        ("constant", np.full((4, 4), 7, np.int16), np.ones((4, 4), bool)),
        ("non-finite", np.array([1, np.nan, 2, 3.0]), np.ones(4, bool)),
        ("non-finite", np.array([1, -np.inf, 2, 3.0], np.float16), np.ones(4, bool)),
        ("empty-mask", np.arange(4.0), np.zeros(4, bool)),
        ("too-few-voxels", np.arange(4.0), np.arange(4) == 2),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_hopeless_input_is_refused_with_its_reason(method, reason, values, mask) -> None:
    with pytest.raises(NormalizationRefused) as caught:
        method.solve(values, mask)
    assert caught.value.reason == reason


@every
def test_a_mask_of_another_shape_is_a_wrong_call(method) -> None:
    with pytest.raises(UsageError, match="mask must be Boolean"):
        method.solve(np.arange(4.0), np.ones(5, bool))


@every
def test_json_brings_back_an_equal_method(method) -> None:
    record = json.loads(json.dumps(method.to_json()))
    assert record["method"] == method.card.name
    assert type(method).from_json(record) == method
    with pytest.raises(RunError, match=f"method '{method.card.name}'"):
        type(method).from_json({**record, "method": "other"})
    with pytest.raises(RunError, match="with surprise"):
        type(method).from_json({"method": method.card.name, "surprise": 1})
