# SPDX-License-Identifier: Apache-2.0
"""The fixed window: against NumPy's percentiles, merged in any partition, the same for all."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vesalius.errors import DataError, RunError, UsageError
from vesalius.normalization.intensity.window import FIT, METHOD


def images(seed: int, count: int = 5) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(seed)
    out = []
    for n in range(count):
        values = rng.normal(40 + n, 60, (8, 9, 5 + n)).astype(np.int16)
        out.append((values, rng.random(values.shape) < 0.7))
    return out


def fit(pairs) -> METHOD:
    one = FIT()
    for values, mask in pairs:
        one.add(values, mask)
    return one.finish()


def test_against_numpy() -> None:
    pairs = images(0)
    found = fit(pairs)
    values = np.concatenate([v[m] for v, m in pairs])
    low, high = np.percentile(values, (0.5, 99.5), method="lower")
    assert (found.low, found.high) == (low, high)
    clipped = np.clip(values, low, high)
    assert found.mean == pytest.approx(clipped.mean(), rel=1e-12)
    assert found.std == pytest.approx(clipped.std(), rel=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 50), st.randoms(use_true_random=False))
def test_any_order_and_partition_gives_the_same_bits(seed: int, random) -> None:
    pairs = images(seed)
    whole = fit(pairs)
    random.shuffle(pairs)
    cut = random.randint(0, len(pairs))
    parts = []
    for some in (pairs[:cut], pairs[cut:]):
        one = FIT()
        for values, mask in some:
            one.add(values, mask)
        parts.append(pickle.loads(pickle.dumps(one)))
    parts[1].merge(parts[0])
    assert parts[1].finish() == whole


def test_the_same_value_means_the_same_in_every_image() -> None:
    window = fit(images(0))
    one, two = (window.solve(v, m) for v, m in images(1)[:2])
    assert one == two
    curve = one.apply(np.array([window.low - 500, window.low, window.mean, window.high, 9000]))
    assert (np.diff(curve) >= 0).all()
    assert curve[0] == curve[1]
    assert curve[3] == curve[4]
    assert curve[2] == pytest.approx(0, abs=1e-6)
    assert one.apply(np.array([window.mean + window.std])) == pytest.approx(1, abs=1e-6)


def test_nothing_that_varies_is_no_window() -> None:
    with pytest.raises(DataError, match="no varying values"):
        FIT().finish()
    with pytest.raises(UsageError, match="low < high"):
        METHOD(3, 3, 0, 1)
    two = FIT()
    two.add(np.array([7] * 5000 + [9]), np.ones(5001, bool))  # both percentiles fall on 7
    assert (two.finish().low, two.finish().high) == (7, 9)


def test_json_brings_back_an_equal_method() -> None:
    window = fit(images(3))
    assert METHOD.from_json(json.loads(json.dumps(window.to_json()))) == window
    with pytest.raises(RunError, match="method 'window'"):
        METHOD.from_json({"method": "window", "low": 1})
