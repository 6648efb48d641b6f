# SPDX-License-Identifier: Apache-2.0
"""Curves: hand-known values, inverses, records, any shape, dtype and memory order."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from vesalius.errors import RunError, UsageError
from vesalius.normalization.transfer import (
    Linear,
    PiecewiseLinear,
    Polynomial,
    Tanh,
    from_json,
)

CURVES = [
    Linear(100.0, 20.0),
    Linear(100.0, 20.0, 40.0, 180.0),
    Linear(100.0, 20.0, None, 180.0),
    Tanh(100.0, 20.0, 3.5, 0.1, 0.9),
    PiecewiseLinear((0.0, 50.0, 200.0), (-1.0, 0.0, 1.0)),
    PiecewiseLinear((0.0, 50.0, 200.0), (-1.0, 0.0, 1.0), "clip"),
    Polynomial((1.0, 0.5, 0.001), -5.0, 90.0),
]
every = pytest.mark.parametrize("curve", CURVES, ids=lambda one: type(one).__name__)


def test_hand_known_values() -> None:
    x = np.array([0.0, 100, 120, 200])
    np.testing.assert_array_equal(CURVES[0].apply(x), [-5, 0, 1, 5])
    np.testing.assert_array_equal(CURVES[1].apply(x), [-3, 0, 1, 4])
    np.testing.assert_array_equal(CURVES[2].apply(x), [-5, 0, 1, 4])
    soft = (3.5 * np.tanh((x - 100) / 70) - 0.1) / 0.9
    np.testing.assert_allclose(CURVES[3].apply(x), soft, rtol=1e-6)
    x = np.array([-50.0, 0, 25, 50, 125, 200, 275])
    np.testing.assert_allclose(CURVES[4].apply(x), [-2, -1, -0.5, 0, 0.5, 1, 1.5])
    np.testing.assert_allclose(CURVES[5].apply(x), [-1, -1, -0.5, 0, 0.5, 1, 1])
    np.testing.assert_allclose(CURVES[6].apply(np.array([-9.0, 2, 1e4])), [-3.419, 2.004, 90])


@every
@settings(max_examples=30, deadline=None)
@given(
    values=arrays.arrays(
        st.sampled_from([np.int16, np.uint16, np.uint8, np.float32, np.float64]),
        arrays.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=6),
        elements=st.integers(0, 200),
    )
)
def test_any_shape_and_memory_order_is_worked_on_value_by_value(curve, values) -> None:
    before = values.copy()
    found = curve.apply(values)
    assert found.dtype == np.float32
    assert found.shape == values.shape
    one_by_one = [float(curve.apply(np.array([value]))[0]) for value in values.reshape(-1)]
    np.testing.assert_array_equal(found.reshape(-1), np.array(one_by_one, np.float32))
    np.testing.assert_array_equal(curve.apply(np.asfortranarray(values)), found)
    np.testing.assert_array_equal(curve.apply(values[::-1]), found[::-1])
    np.testing.assert_array_equal(values, before)


@every
@pytest.mark.parametrize("shape", [(5, 1, 1), (1, 5, 1), (1, 1, 5), (5, 1), (1, 1, 1)])
def test_a_line_of_voxels_is_in_both_memory_orders(curve, shape) -> None:
    values = np.linspace(0, 200, int(np.prod(shape))).reshape(shape)
    assert curve.apply(values).shape == shape


@every
def test_parts_of_a_large_array_meet(curve) -> None:
    values = np.linspace(0, 200, 70_001)
    found = curve.apply(values)
    np.testing.assert_allclose(found[::7000], curve.apply(values[::7000]), rtol=1e-6)
    assert (np.diff(found) >= 0).all()


@pytest.mark.parametrize("curve", CURVES[:5], ids=lambda one: type(one).__name__)
@settings(max_examples=30, deadline=None)
@given(value=st.floats(41, 179))
def test_inverse_brings_values_back(curve, value: float) -> None:
    back = curve.inverse(curve.apply(np.array([value])))
    assert back.dtype == np.float32
    assert back[0] == pytest.approx(value, abs=1e-3)


def test_clipped_values_come_back_as_the_limit() -> None:
    np.testing.assert_allclose(
        CURVES[1].inverse(CURVES[1].apply(np.array([-999.0, 999]))), [40, 180]
    )
    np.testing.assert_allclose(
        CURVES[5].inverse(CURVES[5].apply(np.array([-999.0, 999]))), [0, 200]
    )


def test_what_has_no_inverse_says_so() -> None:
    with pytest.raises(UsageError, match="no inverse"):
        CURVES[6].inverse(np.zeros(3))
    with pytest.raises(UsageError, match="not strictly rising"):
        PiecewiseLinear((0.0, 1.0, 2.0), (0.0, 1.0, 1.0)).inverse(np.zeros(3))


@every
def test_record(curve) -> None:
    assert from_json(json.loads(json.dumps(curve.to_json()))) == curve


def test_impossible_curves_are_refused() -> None:
    for scale in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(UsageError, match="scale > 0"):
            Linear(0.0, scale)
    for x, y in (((0.0,), (1.0,)), ((0.0, 0.0), (1.0, 2.0)), ((0.0, 1.0), (1.0,))):
        with pytest.raises(UsageError, match="at least two knots"):
            PiecewiseLinear(x, y)
    with pytest.raises(UsageError, match="extend or clip"):
        PiecewiseLinear((0.0, 1.0), (0.0, 1.0), "wrap")
    with pytest.raises(RunError, match="unknown curve 'spiral'"):
        from_json({"curve": "spiral"})
