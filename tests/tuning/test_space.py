# SPDX-License-Identifier: Apache-2.0
"""A space: what its file may hold, what is drawn from it, how points lie to each other."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vesalius.errors import UsageError
from vesalius.tuning.space import Space, key_of

HELD = {
    "format": "space 1",
    "parameters": {
        "model": {"kind": "choice", "values": ["frozen", "resnet18", "cnn"]},
        "lr": {
            "kind": "float", "low": 1e-5, "high": 1e-1, "log": True, "default": 1e-3,
            "when": {"model": ["resnet18", "cnn"]},
        },
        "batch": {"kind": "int", "low": 4, "high": 7, "when": {"model": ["resnet18"]}},
    },
}  # fmt: skip


@pytest.fixture
def space() -> Space:
    return Space.from_json(HELD)


@settings(deadline=None)
@given(seed=st.integers(0, 2**32), step=st.floats(0.01, 2))
def test_what_is_drawn_and_what_lies_near_are_points_of_the_space(seed: int, step: float) -> None:
    space = Space.from_json(HELD)
    rng = np.random.default_rng(seed)
    point = space.draw(rng)
    space.check(point)
    beside = space.near(point, rng, step=step)
    space.check(beside)
    assert json.loads(key_of(point)) == point
    assert len(space.encode(point)) == len(space.encode(beside))


def test_draws_are_even_on_their_scale(space: Space) -> None:
    rng = np.random.default_rng(0)
    points = [space.draw(rng) for _ in range(6000)]
    models = [p["model"] for p in points]
    assert all(abs(models.count(m) / 6000 - 1 / 3) < 0.03 for m in ("frozen", "resnet18", "cnn"))
    below = np.mean([p["lr"] < 1e-3 for p in points if "lr" in p])
    assert abs(below - 0.5) < 0.03  # the middle of the logarithms
    batches = [p["batch"] for p in points if "batch" in p]
    assert all(abs(batches.count(n) / len(batches) - 0.25) < 0.04 for n in (4, 5, 6, 7))


def test_only_what_its_conditions_allow_exists(space: Space) -> None:
    assert space.defaults() == {"model": "frozen"}
    assert space.defaults(model="cnn") == {"model": "cnn", "lr": 1e-3}
    assert set(space.defaults(model="resnet18")) == {"model", "lr", "batch"}
    with pytest.raises(UsageError, match="'lr' is void"):
        space.check({"model": "frozen", "lr": 1e-3})
    with pytest.raises(UsageError, match="'lr' is missing"):
        space.check({"model": "cnn"})
    assert not space.holds({"model": "cnn"})
    assert not space.holds({"model": "cnn", "lr": 1.0})
    assert space.holds({"model": "cnn", "lr": 1e-3})


def test_distances_follow_the_scales(space: Space) -> None:
    def distance(a: dict, b: dict) -> float:
        return float(np.linalg.norm(space.encode(a) - space.encode(b)))

    low, middle, high = ({"model": "cnn", "lr": lr} for lr in (1e-5, 1e-3, 1e-1))
    assert distance(low, middle) == pytest.approx(0.5)
    assert distance(low, high) == pytest.approx(1)
    other = {"model": "resnet18", "lr": 1e-5, "batch": 4}
    assert distance(low, other) == pytest.approx(1)  # a choice is a whole way


def test_a_file_is_read_as_it_was_written(space: Space, tmp_path: Path) -> None:
    assert Space.load(space.save(tmp_path / "space.json")) == space


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"modle": {"kind": "int", "low": 1, "high": 2}}, "'modle'.*Did you mean 'model'"),
        ({"lr": {"kind": "flaot", "low": 1, "high": 2}}, "one of float, int, choice"),
        ({"lr": {"kind": "float", "low": 1, "hihg": 2}}, "'hihg'.*Did you mean 'high'"),
        ({"lr": {"kind": "float", "low": 3, "high": 2}}, "at most high"),
        ({"lr": {"kind": "float", "low": 0, "high": 2, "log": True}}, "above 0"),
        ({"lr": {"kind": "float", "low": 1, "high": 2, "default": 3}}, "from 1 to 2"),
        ({"lr": {"kind": "float", "low": True, "high": 2}}, "lr.low must be a number"),
        ({"batch": {"kind": "int", "low": 1.5, "high": 2}}, "whole number"),
        ({"model": {"kind": "choice", "values": []}}, "list of different values"),
        ({"lr": {"kind": "float", "low": 1, "high": 2, "when": {"batch": [3]}}}, "before it"),
        (
            {"model": HELD["parameters"]["model"],
             "lr": {"kind": "float", "low": 1, "high": 2, "when": {"model": ["resnet81"]}}},
            "Did you mean 'resnet18'",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(change: dict, words: str) -> None:
    held = {"format": "space 1", "parameters": change}
    with pytest.raises(UsageError, match=words):
        Space.from_json(held, known=["model", "lr", "batch"])


def test_what_is_no_space_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="space 1"):
        Space.from_json({"parameters": {}})
    (tmp_path / "space.json").write_text("{")
    with pytest.raises(UsageError, match="cannot be read"):
        Space.load(tmp_path / "space.json")
