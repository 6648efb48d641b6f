# SPDX-License-Identifier: Apache-2.0
"""Targets: truth to code and answer back, losses of each kind, probabilities that are proper."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import log_loss

from vesalius.errors import CohortError, RunError, UsageError
from vesalius.tasks.balance import balance, balancing, case_counts
from vesalius.tasks.targets import Target, read_labels, write_labels
from vesalius.training.loss import huber, imbalance, label_weights, ordinal_log_probabilities

torch.set_num_threads(1)

BINARY = Target("malignant", "binary", ("no", "yes"))
MULTI = Target("organ", "multiclass", ("heart", "liver", "spleen"))
LABELS = Target("edema+effusion+mass", "multilabel", ("edema", "effusion", "mass"))
GRADES = Target("grade", "ordinal", ("0", "1", "2", "3"))
NUMBER = Target("age", "regression", (), 50.0, 10.0)
ALL = [BINARY, MULTI, LABELS, GRADES, NUMBER]
finite = st.floats(-50, 50)


def drawn(target: Target, n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 2, (n, target.outputs))


@pytest.mark.parametrize(
    ("target", "outputs"), [(BINARY, 2), (MULTI, 3), (LABELS, 3), (GRADES, 3), (NUMBER, 1)]
)
def test_outputs_and_json(target: Target, outputs: int) -> None:
    assert target.outputs == outputs
    assert Target.from_json(json.loads(json.dumps(target.to_json()))) == target


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "other"}, "must be one of binary, multiclass"),
        ({"kind": "regression"}, "must have no classes"),
        ({"kind": "binary"}, "must have two classes, all distinct, got 3"),
        ({"classes": ["a", "a"]}, "got 2: 'a', 'a'"),
        ({"unit_sd": 0.0}, "unit_sd above 0"),
        ({"strange": 1}, "strange"),
    ],
)
def test_a_target_that_cannot_be_is_refused(change: dict, message: str) -> None:
    with pytest.raises(RunError, match=message):
        Target.from_json(MULTI.to_json() | change)
    with pytest.raises(RunError, match="cannot be read"):
        Target.from_json({"kind": "binary"})
    with pytest.raises(UsageError, match="three grades at least"):
        Target("g", "ordinal", ("0", "1"))


def test_codes_by_hand() -> None:
    np.testing.assert_array_equal(MULTI.encode(["spleen", "heart"]), [2, 0])
    assert MULTI.encode(["spleen"]).dtype == np.int64
    codes = LABELS.encode(["", "edema; mass", "?edema; effusion"])
    np.testing.assert_array_equal(codes, [[0, 0, 0], [1, 0, 1], [np.nan, 1, 0]])
    assert codes.dtype == np.float32
    np.testing.assert_array_equal(NUMBER.encode(["50.0", "65", "4e1"]), [0, 1.5, -1])


@pytest.mark.parametrize(
    ("target", "strange", "message"),
    [
        (MULTI, "lung", "no class 'lung'; it knows 'heart', 'liver', 'spleen'"),
        (MULTI, "", "no class ''"),
        (LABELS, "mass; lung", "no class 'lung'"),
        (LABELS, "?lung", "no class 'lung'"),
        (NUMBER, "old", "finite number, got 'old'"),
        (NUMBER, "inf", "finite number, got 'inf'"),
    ],
)
def test_a_strange_truth_is_refused(target: Target, strange: str, message: str) -> None:
    with pytest.raises(CohortError, match=message):
        target.encode([strange])


@settings(deadline=None)
@given(st.lists(st.sampled_from([True, False, None]), min_size=3, max_size=3))
def test_a_label_set_is_written_and_read_back(states: list[bool | None]) -> None:
    text = write_labels(LABELS.classes, dict(zip(LABELS.classes, states, strict=True)))
    read = read_labels(text)
    assert list(read) == [n for n, s in zip(LABELS.classes, states, strict=True) if s is not False]
    code = LABELS.encode([text])[0]
    expected = [np.nan if s is None else float(s) for s in states]
    np.testing.assert_array_equal(code, expected)


@pytest.mark.parametrize("target", [BINARY, MULTI, GRADES])
def test_certain_logits_answer_the_truth_itself(target: Target) -> None:
    truths = list(target.classes) * 2
    codes = target.encode(truths)
    if target.kind == "ordinal":
        logits = np.where(codes[:, None] > np.arange(target.outputs), 40.0, -40.0)
    else:
        logits = 80.0 * np.eye(target.outputs)[codes]
    table = target.probabilities(logits)
    np.testing.assert_allclose(table, np.eye(len(target.classes))[codes], atol=1e-12)
    assert target.predicted(table) == truths
    assert float(target.loss(torch.tensor(logits), torch.tensor(codes))) < 1e-6


def test_labels_are_answered_from_a_half_and_numbers_in_their_unit() -> None:
    table = LABELS.probabilities(np.array([[9.0, -9, 0], [-9, -9, -9]]))
    assert LABELS.predicted(table) == ["edema; mass", ""]
    np.testing.assert_allclose(NUMBER.probabilities(np.array([[-1.5], [0.25]])), [[35], [52.5]])
    assert NUMBER.predicted(np.array([[35.0], [52.5]])) == ["35.0", "52.5"]


@pytest.mark.parametrize("target", ALL)
def test_an_answer_is_a_truth(target: Target) -> None:
    """Law: encoding what was predicted is always possible, and predicts the same again."""
    answers = target.predicted(target.probabilities(drawn(target, 20)))
    target.check(answers)
    codes = target.encode(answers)
    if target.kind == "regression":
        again = target.predicted(target.probabilities(codes[:, None]))
        np.testing.assert_allclose(
            [float(a) for a in again], [float(a) for a in answers], rtol=1e-5
        )
    elif target.kind == "multilabel":
        assert target.predicted(codes) == answers
    else:
        assert target.predicted(np.eye(len(target.classes))[codes]) == answers


@settings(deadline=None)
@given(arrays(float, (5, 3), elements=finite))
def test_probabilities_are_proper(logits: np.ndarray) -> None:
    for target in (MULTI, GRADES):
        table = target.probabilities(logits)
        assert table.dtype == np.float64
        assert (table >= 0).all()
        np.testing.assert_allclose(table.sum(1), 1, atol=1e-12)
    above = GRADES.probabilities(logits)[:, ::-1].cumsum(1)[:, ::-1]
    assert (np.diff(above, axis=1) <= 1e-15).all()
    alone = LABELS.probabilities(logits)
    np.testing.assert_allclose(alone, 1 - LABELS.probabilities(-logits), atol=1e-12)
    assert ((alone >= 0) & (alone <= 1)).all()


def test_numpy_and_torch_say_the_same() -> None:
    logits = drawn(GRADES, 30)
    expected = ordinal_log_probabilities(torch.tensor(logits)).exp().numpy()
    np.testing.assert_allclose(GRADES.probabilities(logits), expected, atol=1e-6)
    softmax = torch.softmax(torch.tensor(logits), 1).numpy()
    np.testing.assert_allclose(MULTI.probabilities(logits), softmax, atol=1e-12)


@settings(deadline=None)
@given(st.permutations(range(3)), st.integers(0, 50))
def test_naming_classes_in_another_order_changes_nothing(order: list[int], seed: int) -> None:
    turned = Target(MULTI.name, "multiclass", tuple(MULTI.classes[place] for place in order))
    logits = drawn(MULTI, 9, seed)
    truths = [MULTI.classes[n % 3] for n in range(9)]
    np.testing.assert_allclose(
        turned.probabilities(logits[:, order]), MULTI.probabilities(logits)[:, order], atol=1e-14
    )
    losses = [
        target.loss(
            torch.tensor(values),
            torch.tensor(target.encode(truths)),
            torch.tensor(balancing(target, truths[:7])),
        )
        for target, values in ((MULTI, logits), (turned, logits[:, order]))
    ]
    torch.testing.assert_close(*losses)
    assert turned.predicted(turned.probabilities(logits[:, order])) == MULTI.predicted(
        MULTI.probabilities(logits)
    )


@pytest.mark.parametrize("target", [BINARY, MULTI, GRADES])
def test_the_loss_is_the_log_loss_of_the_probabilities(target: Target) -> None:
    """Training and scoring mean the same thing by a logit."""
    logits = drawn(target, 24)
    codes = np.arange(24) % len(target.classes)
    truths = [target.classes[code] for code in codes]
    loss = target.loss(torch.tensor(logits), torch.tensor(target.encode(truths)))
    expected = log_loss(codes, target.probabilities(logits))
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_the_loss_of_labels_and_of_numbers() -> None:
    logits = drawn(LABELS, 24)
    truths = [["", "edema", "effusion; mass"][n % 3] for n in range(24)]
    codes = LABELS.encode(truths)
    p = LABELS.probabilities(logits)
    expected = np.mean([log_loss(codes[:, k], p[:, k]) for k in range(3)])
    loss = LABELS.loss(torch.tensor(logits), torch.tensor(codes))
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    weights = torch.tensor(balancing(LABELS, truths))
    assert weights.shape == (3, 2)
    assert torch.isfinite(LABELS.loss(torch.tensor(logits), torch.tensor(codes), weights))

    values = torch.tensor(drawn(NUMBER, 4))
    truth = torch.tensor(NUMBER.encode(["60", "40", "50", "90"]))
    assert truth.tolist() == [1, -1, 0, 4]
    torch.testing.assert_close(NUMBER.loss(values, truth), huber(values, truth))
    with pytest.raises(UsageError, match="smoothing must be 0"):
        NUMBER.loss(values, truth, smoothing=0.1)


def test_a_regression_learns_the_scale_of_its_training_truths() -> None:
    fresh = Target("age", "regression", ())
    truths = ["10.0", "20.0", "60.0"]
    fitted = fresh.fitted(truths)
    codes = fitted.encode(truths)
    assert codes.mean() == pytest.approx(0, abs=1e-6)
    assert codes.std() == pytest.approx(1, rel=1e-6)
    np.testing.assert_allclose(fitted.probabilities(codes[:, None])[:, 0], [10, 20, 60], rtol=1e-6)
    with pytest.raises(CohortError, match="hold 1 value"):
        fresh.fitted(["3.0", "3"])
    assert MULTI.fitted(["heart"]) is MULTI


def test_counts_weights_and_balance() -> None:
    truths = ["liver"] * 6 + ["heart"] * 3
    assert case_counts(MULTI, truths) == {"heart": 3, "liver": 6, "spleen": 0}
    assert balance(MULTI, truths) == imbalance({"heart": 3, "liver": 6, "spleen": 0})
    weights = balancing(MULTI, truths)
    assert weights[0] / weights[1] == pytest.approx(np.sqrt(2))

    sets = ["", "edema; ?mass", "edema; effusion", "mass"]
    assert case_counts(LABELS, sets)["mass"] == {"absent": 2, "present": 1, "unknown": 1}
    assert balancing(LABELS, sets) == [list(p) for p in label_weights([(2, 2), (3, 1), (2, 1)])]
    found = balance(LABELS, sets)
    assert found["labels_per_case"] == 1
    assert found["labels"]["effusion"]["ratio"] == 3
    assert found["labels"]["mass"]["unknown"] == 1
    json.dumps(found, allow_nan=False)

    assert case_counts(NUMBER, ["1", "2"]) == {}
    assert balancing(NUMBER, ["1", "2"]) is None
    assert balance(NUMBER, ["1", "2", "3", "4", "9"])["quartiles"] == [1, 2, 3, 4, 9]


def test_each_kind_can_be_learned() -> None:
    """A linear head on the answer itself finds it: the loss, the code and the answer agree."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (120, 2))
    signs = {n: x[:, place] > 0 for place, n in enumerate(("edema", "effusion"))}
    truths = {
        BINARY: ["yes" if a > 0 else "no" for a, _ in x],
        MULTI: [MULTI.classes[int((a > 0) + (a > 0 and b > 0))] for a, b in x],
        LABELS: ["; ".join(n for n, held in signs.items() if held[row]) for row in range(120)],
        GRADES: [str(int(np.digitize(a, [-0.5, 0, 0.5]))) for a, _ in x],
        NUMBER: [repr(float(50 + 10 * a - 5 * b)) for a, b in x],
    }
    features = torch.tensor(np.c_[x, np.ones(120)], dtype=torch.float32)
    for target, texts in truths.items():
        fitted = target.fitted(texts)
        codes = torch.tensor(fitted.encode(texts))
        head = torch.zeros(3, fitted.outputs, requires_grad=True)
        for _ in range(400):
            (slope,) = torch.autograd.grad(fitted.loss(features @ head, codes), head)
            head = (head - 5 * slope if target.classes else head - slope).detach()
            head.requires_grad_()
        answers = fitted.predicted(fitted.probabilities((features @ head).detach().numpy()))
        if target.kind == "regression":
            errors = np.abs(np.array(answers, float) - np.array(texts, float))
            assert errors.max() < 0.1
        else:
            assert np.mean([a == b for a, b in zip(answers, texts, strict=True)]) > 0.93, target
