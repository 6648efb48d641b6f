# SPDX-License-Identifier: Apache-2.0
"""How alike an archive's own images are, against plain loops; and whose images a query's are."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vesalius.store.protocol import Entry
from vesalius.tasks.retrieve.search_keys import EntryKey, image_of, state_digits, voxel_digits
from vesalius.tasks.retrieve.search_own import Print, likely_own
from vesalius.tasks.retrieve.search_survey import UNKNOWN, Survey, survey

sys.path.insert(0, str(Path(__file__).parent))
from memory_archive import MemoryArchive, random_archive


@pytest.fixture
def archive() -> MemoryArchive:
    return random_archive(np.random.default_rng(3), 120)


def test_the_scales_are_those_of_plain_loops(archive: MemoryArchive) -> None:
    found = survey(archive)
    rows = list(archive.rows.values())
    nearest, pairs = [], []
    for place, one in enumerate(rows):
        cosines = [float(one.vector @ o.vector) for o in rows if o.patient != one.patient]
        nearest.append(max(cosines))
        pairs += [float(one.vector @ o.vector) for o in rows[:place] if o.patient != one.patient]
    assert found.sampled == len(rows)
    assert found.images == len(rows)
    assert found.patients == 120
    assert found.floor == pytest.approx(np.quantile(nearest, UNKNOWN), abs=1e-3)
    for value in (-0.2, 0.1, 0.5, 0.8):
        share = 100 * np.mean(np.array(pairs) < value)
        assert found.percentile(value) == pytest.approx(share, abs=1)
    assert found.percentile(1.1) == 100
    assert found.closeness(-1.1) == 0


def test_a_patient_of_many_images_is_not_its_own_neighbor() -> None:
    rng = np.random.default_rng(0)
    base = np.array([1, 0, 0, 0], np.float32)
    crowd = []
    for n in range(100):
        vector = base + rng.normal(scale=1e-3, size=4)
        unit = (vector / np.linalg.norm(vector)).astype(np.float32)
        crowd.append(Entry(f"x{n:03}", "x", "px", unit))
    far = np.array([0.6, 0.8, 0, 0], np.float32)
    found = survey(MemoryArchive([*crowd, Entry("y", "y", "py", far)]))
    assert found.nearest[-1] < 0.7


def test_too_small_an_archive_says_so() -> None:
    found = survey(random_archive(np.random.default_rng(0), 3))
    assert found.floor is None
    assert "too small" in found.rule()
    assert survey(MemoryArchive([])).percentile(0.5) is None


def test_it_survives_json_and_repeats(archive: MemoryArchive) -> None:
    found = survey(archive)
    assert Survey.from_json(found.to_json()) == found == survey(archive)


def test_keys_say_what_changed() -> None:
    key = EntryKey(
        "c0ffee00", "0123456789abcdef", voxel_digits("71884e23281df933"), state_digits(1)
    )
    assert EntryKey.parse(str(key)) == key
    assert image_of(str(key)) == "0123456789abcdef"
    assert image_of("of another maker") == "of another maker"
    assert EntryKey.parse("of another maker") is None
    assert state_digits("a", {"x": 1, "y": 2}) == state_digits("a", {"y": 2, "x": 1})
    assert state_digits("a") != state_digits("b")
    assert voxel_digits(None) == "00000000"


def test_a_query_of_an_archived_patient_is_known_again(archive: MemoryArchive) -> None:
    vectors = np.stack([archive.rows["k005-0"].vector, archive.rows["k007-0"].vector])
    for number, content in ((5, "aaaaaaaa11"), (7, "bbbbbbbb22")):
        old = archive.rows.pop(f"k{number:03}-0")
        key = str(EntryKey("c0ffee00", f"row{number}", content[:8], "0" * 8))
        archive.rows[key] = replace(old, key=key, facts={"phash": 0b1111 << number})
    prints = [Print("aaaaaaaa11", None), Print("ffffffff", (0b1111 << 7) ^ 0b11)]
    assert likely_own(archive, vectors, prints) == {
        "p005": "an identical image",
        "p007": "a nearly identical image",
    }
    strangers = [Print("ffffffff", None), Print("ffffffff", 0b1111 << 40)]
    assert likely_own(archive, vectors, strangers) == {}
