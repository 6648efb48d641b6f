# SPDX-License-Identifier: Apache-2.0
"""Net benefit by hand and by its definition; failures do the wrong deed at every threshold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vesalius.metrics.decision_curve import THRESHOLDS, decision_curve
from vesalius.metrics.probabilities import rank_values


def at(curve, name, threshold):
    return curve[name][curve["threshold"].index(threshold)]


def test_net_benefit_by_hand():
    """At 0.2, three of four are treated, two of them ill: 2/4 - 1/4 x 0.2/0.8."""
    positive = np.array([True, True, False, False])
    curve = decision_curve(positive, np.array([0.9, 0.2, 0.3, 0.1]), "abcd", draws=50)
    assert at(curve, "model", 0.2) == pytest.approx(2 / 4 - 1 / 4 * 0.25)
    assert at(curve, "treat_all", 0.2) == pytest.approx(2 / 4 - 2 / 4 * 0.25)
    assert at(curve, "model", 0.5) == pytest.approx(1 / 4)
    assert at(curve, "model", 0.95) == 0
    assert curve["treat_none"] == 0


@settings(max_examples=20, deadline=None)
@given(n=st.integers(3, 50), seed=st.integers(0, 1000))
def test_laws(n, seed):
    generator = np.random.default_rng(seed)
    positive, values = generator.random(n) < 0.4, generator.random(n)
    curve = decision_curve(positive, values, range(n), draws=100, seed=seed)
    for place, threshold in enumerate(THRESHOLDS):
        treated = values >= threshold
        expected = (treated & positive).sum() - (treated & ~positive).sum() * threshold / (
            1 - threshold
        )
        assert curve["model"][place] == pytest.approx(expected / n)
        assert curve["low"][place] <= curve["high"][place]
    assert max(curve["model"]) <= positive.mean() + 1e-12  # no policy gains more than all the ill
    everyone = decision_curve(positive, np.ones(n), range(n), draws=1)
    assert everyone["model"] == pytest.approx(curve["treat_all"])
    perfect = decision_curve(positive, positive.astype(float), range(n), draws=1)
    assert perfect["model"] == pytest.approx([positive.mean()] * len(THRESHOLDS))


def test_failures_and_single_patients():
    positive = np.array([True, False])
    values = rank_values(np.array([0.9, 0.1]), positive, np.array([True, True]))
    curve = decision_curve(positive, values, ["a", "a"])
    assert at(curve, "model", 0.5) == pytest.approx(-1 / 2)
    assert (curve["low"], curve["high"]) == (None, None)
