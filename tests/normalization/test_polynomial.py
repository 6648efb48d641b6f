# SPDX-License-Identifier: Apache-2.0
"""Polynomial histogram fit: recovery of a known cubic, declared laws, distances, refusals."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vesalius.errors import DataError, NormalizationRefused, UsageError
from vesalius.normalization.intensity.polynomial import PolynomialFit, TemplateFit, report


def image(seed: int) -> tuple[np.ndarray, np.ndarray]:
    values = np.random.default_rng(seed).beta(2, 3, (20, 20, 12)) * 10
    return values, values > 0.5


def test_a_known_cubic_is_recovered() -> None:
    values, mask = image(0)
    template = 5 + 2 * values + 0.1 * values**2 + 0.05 * values**3
    curve = PolynomialFit.to_template(template, mask).solve(values, mask)
    np.testing.assert_allclose(curve.coefficients, (5, 2, 0.1, 0.05), rtol=1e-2, atol=1e-2)
    low, high = np.quantile(template[mask], (0.001, 0.999))
    expected = np.clip(template, low, high)
    np.testing.assert_allclose(curve.apply(values)[mask], expected[mask], rtol=1e-3)
    distances = report(values, mask, curve, template, mask)
    assert distances["before"]["ks"] > 0.5
    assert distances["after"]["ks"] < 0.01
    assert distances["after"]["kl"] < 0.01 < distances["before"]["kl"]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 99), st.floats(1e-3, 1e3), st.floats(-5, 5))
def test_positive_gain_and_offset_do_not_matter(seed: int, a: float, b: float) -> None:
    values, mask = image(seed)
    method = PolynomialFit.to_template(*image(seed + 1))
    moved = a * (values + b)
    np.testing.assert_allclose(
        method.solve(moved, mask).apply(moved), method.solve(values, mask).apply(values), rtol=1e-4
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 999), st.sampled_from(["bimodal", "heavy", "steps"]))
def test_order_is_kept_over_the_range_said(seed: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    values, mask = image(seed)
    template = {
        "bimodal": np.r_[rng.normal(0, 1, 4000), rng.normal(30, 0.1, 4000)],
        "heavy": np.exp(rng.normal(0, 2, 8000)),
        "steps": rng.integers(0, 3, 8000).astype(float),
    }[kind]
    method = PolynomialFit.to_template(template, np.ones(template.shape, bool))
    low, high = values[mask].min(), values[mask].max()
    line = np.linspace(2 * low - high, 2 * high - low, 5000)
    assert (np.diff(method.solve(values, mask).apply(line)) >= -1e-4).all()


def test_a_fit_does_not_depend_on_order_or_partition() -> None:
    images = [image(n) for n in range(5)]
    whole, left, right = TemplateFit(), TemplateFit(), TemplateFit()
    for one in images:
        whole.add(*one)
    for one in reversed(images[:2]):
        left.add(*one)
    for one in reversed(images[2:]):
        right.add(*one)
    right = pickle.loads(pickle.dumps(right))
    right.merge(left)
    assert right.finish() == whole.finish()
    assert PolynomialFit.from_json(json.loads(json.dumps(whole.finish().to_json()))) == (
        whole.finish()
    )
    with pytest.raises(UsageError, match="do not merge"):
        whole.merge(TemplateFit(coefficients=3))


def test_verdicts() -> None:
    with pytest.raises(DataError, match="at least one"):
        TemplateFit().finish()
    with pytest.raises(UsageError, match="999"):
        PolynomialFit((0.0, 1.0))
    values = np.zeros((20, 20, 10))
    values[0, 0, 0] = 1
    with pytest.raises(NormalizationRefused) as refused:
        PolynomialFit.to_template(values, np.ones(values.shape, bool))
    assert refused.value.reason == "constant"
