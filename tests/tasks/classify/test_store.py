# SPDX-License-Identifier: Apache-2.0
"""The store: every image's views on disk, failures named, an interrupted run reads it again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vesalius.errors import BudgetError, CohortError
from vesalius.geometry import flat_affine
from vesalius.normalization import Normalizer
from vesalius.tasks.cases import Case
from vesalius.tasks.classify.clock import Clock
from vesalius.tasks.classify.store import prepare
from vesalius.tasks.views import make_views
from vesalius.volume import Volume

ENDLESS = Clock(0.0, None)
DECISIONS = {
    "input": {"size": 8, "slices": 3, "spatial_dims": 2, "channels": 1},
    "facts": {"modality": ["CT", "US"], "plane": [], "scanner": []},
}


@pytest.fixture
def mixed(memory):
    """Two flat images, a volume, a file that ends early, a constant image."""
    rng = np.random.default_rng(0)

    def flat(*shape: int) -> Volume:
        return Volume(rng.normal(size=(1, *shape)), flat_affine(), modality="US", calibrated=False)

    deep = Volume(rng.normal(size=(1, 9, 8, 7)), np.diag([1.0, 1.0, 4.0, 1.0]), modality="CT")
    constant = Volume(np.ones((1, 9, 9, 1)), flat_affine(), calibrated=False)
    items = [flat(9, 12, 1), deep, flat(6, 6, 1), None, constant]
    return memory.of([{"volume": volume, "label": "a"} for volume in items])


def cases_of(cohort) -> list[Case]:
    rows = cohort.rows
    parts = [rows[:2], rows[2:4], rows[4:]]
    return [Case(f"c{n}", tuple(part), f"c{n}", "a") for n, part in enumerate(parts)]


def test_views_come_back_as_they_were_made(mixed, tmp_path: Path) -> None:
    shown: list[tuple] = []
    store = prepare(
        tmp_path, mixed, cases_of(mixed), DECISIONS, Normalizer(), ENDLESS,
        lambda *args: shown.append(args),
    )  # fmt: skip
    assert shown[-1][0] == "preparing images"
    for row in mixed.rows[:3]:
        image = store.image(row["key"])
        wanted = make_views(mixed.read(row), DECISIONS, Normalizer())
        np.testing.assert_array_equal(image.views, wanted)
        assert image.facts == ({"CT": 1, "US": 2}[row["modality"]], 0, 0)
    assert [len(store.image(row["key"]).views) for row in mixed.rows[:3]] == [1, 3, 1]


def test_what_cannot_be_prepared_is_named_and_the_rest_serves(mixed, tmp_path: Path) -> None:
    cases = cases_of(mixed)
    store = prepare(tmp_path, mixed, cases, DECISIONS, Normalizer(), ENDLESS, None)
    assert store.served(cases) == cases[:2]
    assert [len(store.images(case)) for case in cases] == [2, 1, 0]
    lost = [store.lost(case) for case in cases]
    assert lost[0] == ""
    assert mixed.rows[3]["key"] in lost[1]
    assert "ends early" in lost[1]
    assert "constant" in lost[2]


def test_a_resumed_run_reads_nothing_again(mixed, tmp_path: Path) -> None:
    cases = cases_of(mixed)
    first = prepare(tmp_path, mixed, cases, DECISIONS, Normalizer(), ENDLESS, None)
    kept = {key: first.image(key).views.copy() for key in first.places}
    mixed.volumes.clear()  # any reading would fail
    again = prepare(tmp_path, mixed, cases, DECISIONS, Normalizer(), ENDLESS, None)
    assert again.places == first.places
    assert again.failures == first.failures
    for key, views in kept.items():
        np.testing.assert_array_equal(again.image(key).views, views)


def test_a_crash_while_preparing_begins_anew(mixed, tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def die(_stage: str, done: int, _total: int | None) -> None:
        if done == 2:
            raise Killed

    cases = cases_of(mixed)
    with pytest.raises(Killed):
        prepare(tmp_path, mixed, cases, DECISIONS, Normalizer(), ENDLESS, die)
    store = prepare(tmp_path, mixed, cases, DECISIONS, Normalizer(), ENDLESS, None)
    assert len(store.places) == 3
    assert len(store.array) == 5


def test_no_usable_image_at_all_is_said(mixed, tmp_path: Path) -> None:
    cases = [Case("c", tuple(mixed.rows[3:]), "c", "a")]
    with pytest.raises(CohortError, match=r"none of the 2 images can be used.*ends early"):
        prepare(tmp_path, mixed, cases, DECISIONS, Normalizer(), ENDLESS, None)


def test_images_that_cannot_be_prepared_in_time_are_refused_early(
    memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.random.default_rng(0).normal(size=(1, 9, 9, 1))
    volume = Volume(pixels, flat_affine(), modality="US", calibrated=False)
    cohort = memory.of([{"volume": volume, "label": "a"}] * 40)
    cases = [Case(row["key"], (row,), row["key"], "a") for row in cohort.rows]
    now = [0.0]

    def slow(row):
        now[0] += 1.0  # a second an image
        return volume

    monkeypatch.setattr("time.monotonic", lambda: now[0])
    monkeypatch.setattr(cohort, "read", slow, raising=False)
    short = Clock(0.0, 0.5)
    with pytest.raises(BudgetError, match=r"40 images takes about 32 s more, and 18 s are left"):
        prepare(tmp_path / "short", cohort, cases, DECISIONS, Normalizer(), short, None)
    assert now[0] == 8
    store = prepare(tmp_path / "long", cohort, cases, DECISIONS, Normalizer(), Clock(8.0, 1), None)
    assert len(store.places) == 40
