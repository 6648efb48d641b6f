# SPDX-License-Identifier: Apache-2.0
"""The reference: the same bits in any order and partition, intervals as SciPy and NumPy give."""

from __future__ import annotations

import json
from math import sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from vesalius.errors import RunError
from vesalius.normalization import histograms
from vesalius.normalization.distances import of_shares
from vesalius.normalization.reference import FEWEST, Reference


def series(seed: int, count: int) -> list[tuple[str, float, float, list[float]]]:
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(count):
        values = rng.normal(rng.normal(0, 0.05), rng.normal(1, 0.04), 400)
        group = str(rng.choice(["MR", "CT HU"]))
        out.append((group, float(values.mean()), float(values.std()), histograms.shares(values)))
    return out


def of(members) -> Reference:
    reference = Reference()
    for group, mean, sd, shares in members:
        reference.add(group, mean=mean, sd=sd, shares=shares)
    return reference


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 30), st.randoms(use_true_random=False))
def test_any_order_and_partition_gives_the_same_bits(seed, count, random) -> None:
    members = series(seed, count)
    whole = of(members).to_json()
    random.shuffle(members)
    parts, rest = [], members
    while rest:
        cut = random.randint(1, len(rest))
        parts.append(of(rest[:cut]))
        rest = rest[cut:]
    random.shuffle(parts)
    total = Reference()
    for part in parts:
        total.merge(Reference.from_json(json.loads(json.dumps(part.to_json()))))
    assert json.dumps(total.to_json()) == json.dumps(whole)


@pytest.mark.parametrize("offset", [0.0, -500.0, 25_000.0])
@pytest.mark.parametrize("level", [0.95, 0.999])
def test_the_interval_is_that_of_a_further_series(offset: float, level: float) -> None:
    rng = np.random.default_rng(3)
    means, sds = rng.normal(offset, 2.0, 12), rng.normal(7, 0.4, 12)
    reference = of([("G", m, s, [1.0]) for m, s in zip(means, sds, strict=True)])
    for name, values in (("mean", means), ("sd", sds)):
        expected = stats.t.interval(
            level, 11, loc=values.mean(), scale=values.std(ddof=1) * sqrt(1 + 1 / 12)
        )
        assert reference.groups["G"].interval(name, level) == pytest.approx(expected, rel=1e-6)


def test_the_interval_covers_what_it_says() -> None:
    """Of further series of the same kind, 95 % lie within."""
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(600):
        values = rng.normal(0, 1, 9)
        reference = of([("G", v, 1.0, [1.0]) for v in values[:8]])
        low, high = reference.groups["G"].interval("mean")
        inside += low <= values[8] <= high
    assert inside / 600 == pytest.approx(0.95, abs=0.03)


def test_few_series_judge_nobody() -> None:
    members = [("G", 0.0, 1.0, [1.0])] * (FEWEST - 1)
    assert of(members).groups["G"].interval("mean") is None
    assert of([*members, members[0]]).groups["G"].interval("mean") == (0.0, 0.0)


def test_shares_are_the_mean_histogram() -> None:
    members = series(0, 20)
    group = of(members).groups["MR"]
    expected = np.mean([m[3] for m in members if m[0] == "MR"], axis=0)
    np.testing.assert_allclose(group.shares(), expected, atol=1e-9)
    assert group.shares().sum() == pytest.approx(1)


def test_distances_against_scipy() -> None:
    rng = np.random.default_rng(1)
    one, two = rng.normal(0, 1, 5000), rng.normal(0.3, 1.2, 5000)
    ks, kl, _ = of_shares(np.array(histograms.shares(one)), np.array(histograms.shares(two)))
    assert ks == pytest.approx(stats.ks_2samp(one, two).statistic, abs=0.02)
    assert kl > 0
    p, q = np.array([0.5, 0.25, 0.25]), np.array([0.25, 0.25, 0.5])
    assert of_shares(p, q)[1] == pytest.approx(stats.entropy(p, q), abs=1e-4)
    assert of_shares(p, q)[2] == pytest.approx(stats.entropy(q, p), abs=1e-4)
    assert of_shares(p, q)[0] == pytest.approx(0.25)
    assert of_shares(p, p) == (0, 0, 0)


def test_histograms_hold_all_values() -> None:
    values = np.array([-1e9, -6.0, 0.0, 5.99, 6.0, 1e9])
    shares = histograms.shares(values)
    assert len(shares) == histograms.BINS
    assert sum(shares) == pytest.approx(1)
    assert shares[0] == pytest.approx(2 / 6)
    assert shares[-1] == pytest.approx(3 / 6)
    for values in (np.full(9, 1e9), np.full(9, 3, np.int16), np.array([0.0, 1e-30])):
        record = histograms.record(values)
        assert record["high"] > record["low"]
        assert sum(record["shares"]) == pytest.approx(1, abs=1e-4)
    assert sum(histograms.of_unit(np.array([-1000, 0, 3000, 40_000], np.float32))) == 1


def test_a_broken_record_is_refused() -> None:
    with pytest.raises(RunError, match="cannot be read"):
        Reference.from_json({"MR": {"number": 3}})
