# SPDX-License-Identifier: Apache-2.0
"""The choice among methods: patients in one fold, the simpler method where the gain is noise."""

from __future__ import annotations

import numpy as np

from vesalius.tasks.classify.method_choice import choose_method, patient_folds


def test_patients_stay_in_one_fold_and_classes_are_spread() -> None:
    rng = np.random.default_rng(0)
    patients = rng.integers(0, 40, 200)
    folds = patient_folds(rng.integers(0, 3, 200), patients)
    assert all(len(np.unique(folds[patients == p])) == 1 for p in np.unique(patients))
    truth = np.repeat([0, 1], [90, 10])
    folds = patient_folds(truth, None)
    assert np.bincount(folds[truth == 1]).tolist() == [2] * 5
    assert np.bincount(folds).tolist() == [20] * 5


def test_the_second_wins_if_better_and_a_richer_one_only_beyond_two_standard_errors() -> None:
    noise = np.random.default_rng(0).normal(0, 1, 100)
    noise -= noise.mean()
    error = noise.std(ddof=1) / 10
    folds = np.arange(100) % 5

    def choice(second: float, third: float) -> str:
        rows = {"a": noise * 0, "b": noise - second, "c": noise * 2 - second - third}
        return choose_method("abc", lambda name, _, held: rows[name][held], folds)[0]

    assert choice(0.001, 0.0) == "b"
    assert choice(-0.001, 0.0) == "a"
    assert choice(0.001, 1.9 * error) == "b"
    assert choice(0.001, 2.1 * error) == "c"
    assert choice(-0.001, 0.0) == "a"


def test_losses_are_of_rows_that_were_not_fitted_on() -> None:
    seen = []

    def losses(name: str, fit: np.ndarray, held: np.ndarray) -> np.ndarray:
        assert not set(fit) & set(held)
        seen.extend(held.tolist())
        return np.full(len(held), 2.0)

    chosen, found = choose_method(["a"], losses, patient_folds(np.zeros(13, int), None))
    assert sorted(seen) == list(range(13))
    assert (chosen, found) == ("a", {"a": 2.0})
    assert choose_method(["a", "b"], losses, np.zeros(4, int)) == ("a", {})
