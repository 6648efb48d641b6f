# SPDX-License-Identifier: Apache-2.0
"""Conformal intervals: the promised rate on fresh rows, a hand-known width, honesty on few rows."""

from __future__ import annotations

import json

import numpy as np
import pytest

from vesalius.errors import UsageError
from vesalius.tasks.classify.intervals import Intervals


def test_a_hand_known_width() -> None:
    fitted = Intervals.fit(np.zeros(9), np.array([1, -2, 3, -4, 5, -6, 7, -8, 9]), coverage=0.8)
    assert fitted.half_width == 8  # the 8th of 9: ceil(10 * 0.8)
    np.testing.assert_allclose(fitted.apply(np.array([1.0])), [[-7, 9]])


@pytest.mark.parametrize("scaled", [False, True])
def test_fresh_rows_are_held_at_the_promised_rate(scaled) -> None:
    held, widths = [], []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        size = rng.uniform(0.1, 3, 120)
        truth = rng.normal(0, 1, 120) * size
        guess = rng.normal(0, 0.01, 120)
        scale = size if scaled else None
        part = None if scale is None else scale[:60]
        rest = None if scale is None else scale[60:]
        bounds = Intervals.fit(guess[:60], truth[:60], scale=part).apply(guess[60:], rest)
        held.append(((bounds[:, 0] <= truth[60:]) & (truth[60:] <= bounds[:, 1])).mean())
        widths.append(np.ptp(bounds, axis=1))
    # the mean over calibration sets is 55 / 61, with a standard error of about 0.003
    assert np.mean(held) == pytest.approx(55 / 61, abs=0.01)
    assert (np.std(widths[0]) > 0.1) == scaled


def test_too_few_rows_have_no_bounds_and_say_so() -> None:
    fitted = Intervals.fit(np.zeros(8), np.ones(8))
    assert "too few" in fitted.note
    assert "9" in fitted.note
    assert np.isinf(fitted.apply(np.zeros(2))).all()
    again = Intervals.from_json(json.loads(json.dumps(fitted.to_json(), allow_nan=False)))
    assert again == fitted


def test_bad_arguments_are_named() -> None:
    zeros = np.zeros(20)
    with pytest.raises(UsageError, match="coverage must be above 0 and below 1, got 90"):
        Intervals.fit(zeros, zeros, coverage=90)
    with pytest.raises(UsageError, match="truth must be 20"):
        Intervals.fit(zeros, zeros[:3])
    with pytest.raises(UsageError, match="scale must be above 0"):
        Intervals.fit(zeros, zeros, scale=zeros)
    with pytest.raises(UsageError, match="finite"):
        Intervals.fit(zeros + np.nan, zeros)
    with pytest.raises(UsageError, match="fitted without scale"):
        Intervals.fit(zeros, zeros).apply(zeros, zeros + 1)
