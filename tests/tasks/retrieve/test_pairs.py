# SPDX-License-Identifier: Apache-2.0
"""Pairs: who belongs together, who never counts, and what a batch holds."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is first imported

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vesalius.tasks.cases import Case
from vesalius.tasks.retrieve.pairs import Pairs, Relation, make_pairs


def cases(count: int = 24) -> list[Case]:
    rows = [
        {
            "key": f"{n:02}", "label_kind": "abc"[n % 3] if n % 8 else "", "study": f"s{n // 2}",
            "modality": ("CT", "MR")[n // 12], "body_part": "",
            "words": f"words {n % 4}" * (n % 5 > 0),
        }
        for n in range(count)
    ]  # fmt: skip
    return [Case(row["key"], (row,), f"p{n // 2}") for n, row in enumerate(rows)]


def pairs_of(*kinds: str) -> Pairs:
    held = cases()
    groups = {case.key: int(case.patient[1:]) for case in held}
    return make_pairs(held, groups, kinds, ["label_kind"] if "same-label" in kinds else [])


def test_labels_join_patients_and_studies_join_views() -> None:
    everyone = np.arange(24)
    pairs = pairs_of("same-label", "same-study")
    by_label, by_study = (one.matrices(everyone, pairs.patients) for one in pairs.relations)
    positive, counted = (part.numpy() for part in by_label)
    assert positive[1, 4] == 1  # both b, of two patients
    assert positive[1, 2] == 0
    assert counted[1, 2]
    assert not counted[2, 3]  # of one patient
    assert not counted[0].any()  # of no label
    positive, counted = (part.numpy() for part in by_study)
    assert positive[2, 3] == 1
    assert positive.sum() == 24
    assert not counted.diagonal().any()


@given(st.integers(0, 10_000), st.integers(4, 24))
@settings(max_examples=60, deadline=None)
def test_a_batch_is_a_function_of_its_generator(seed: int, batch: int) -> None:
    pairs = pairs_of("same-label", "captions")
    chosen = pairs.draw(np.random.default_rng(seed), batch)
    assert 1 <= len(chosen) <= batch
    assert len(set(chosen)) == len(chosen)
    np.testing.assert_array_equal(chosen, pairs.draw(np.random.default_rng(seed), batch))


def test_batches_hold_partners_and_many_are_of_one_setting() -> None:
    pairs = pairs_of("same-label")
    (relation,) = pairs.relations
    alone, alike = 0, 0
    for seed in range(100):
        chosen = pairs.draw(np.random.default_rng(seed), 8)
        positive, _ = relation.matrices(chosen, pairs.patients)
        known = relation.codes[chosen] >= 0
        alone += int((positive.numpy().sum(1)[known] == 0).sum())
        alike += len(set(pairs.settings[chosen])) == 1
    assert alone < 100
    assert 30 < alike < 75


def test_a_patient_of_many_images_does_not_drown_the_others() -> None:
    patients = np.array([0] * 16 + list(range(1, 9)))
    pairs = Pairs((Relation(np.zeros(24, int), False),), patients, np.zeros(24, int))
    assert pairs.weights[:16].sum() == pytest.approx(4 / 12)
    part = pairs.some(np.array([0, 20]))
    assert part.patients.tolist() == [0, 5]
    assert len(part.relations[0].codes) == 2
