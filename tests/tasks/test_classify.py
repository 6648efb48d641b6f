# SPDX-License-Identifier: Apache-2.0
"""The classifier learns, resumes exactly, and answers for sets whatever their order or size."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from vesalius.errors import BudgetError, CohortError, DataError, RunError, UsageError
from vesalius.files import read_json, write_json
from vesalius.geometry import flat_affine
from vesalius.normalization import Normalizer
from vesalius.tasks.cases import classification_cases
from vesalius.tasks.class_order import class_order
from vesalius.tasks.classify import candidates
from vesalius.tasks.classify import plan as planning
from vesalius.tasks.classify.fit import train_run
from vesalius.tasks.classify.model import new_model
from vesalius.tasks.classify.predict import Classifier
from vesalius.tasks.classify.scoring import score_cases
from vesalius.tasks.run import Run, find_run, plan_id, start_run
from vesalius.tasks.targets import Target
from vesalius.tasks.views import make_views
from vesalius.training.log import read_log
from vesalius.volume import Volume

NETWORK = "resnet10-28"


def prepare(cohort, rows, out: Path, budget=None, model="resnet10", seed=0):
    cases = classification_cases(cohort, "answer")
    part = cases.subset(rows, "train")
    found = planning.fingerprint(part, cases.target)
    decisions = planning.decide(
        found,
        cases.target,
        [case.truth for case in part],
        model=model,
        budget=budget or {"steps": 24},
        case=cases.kind,
    )
    decisions["operating"] = {}
    for spec in decisions["networks"]:
        spec["network"]["options"]["width"] = 8
    plan = {
        "task": "classify",
        "target": "answer",
        "seed": seed,
        "request": {"task": "classify", "seed": seed},
        "fingerprint": found,
        "decisions": decisions,
        "measured": {},
        "command": "test",
        "cohort": {"digest": cohort.digest(), "version": 1, "license": "CC0"},
        "split_digest": "s",
        "audit": [],
    }
    run = start_run(plan, out)
    write_json(out / "split.json", {"rows": rows})
    return run, cases


def train(cohort, rows, out: Path, **options) -> tuple[Run, object]:
    run, cases = prepare(cohort, rows, out, **options)
    return train_run(run, cohort, cases, started=time.monotonic()), cases


@pytest.fixture
def trained(striped, thirds, tmp_path):
    run, cases = train(striped, thirds, tmp_path / "run", budget={"steps": 60})
    return run, cases


def test_it_learns_and_writes_the_run_folder(striped, thirds, trained) -> None:
    run, cases = trained
    log = read_log(run.path / "networks" / NETWORK / "log.jsonl")
    losses = [e["loss"] for e in log if e["event"] == "step"]
    assert np.mean(losses[-4:]) < 0.8 * np.mean(losses[:4])
    run = Run.load(run.path)
    assert run.finished
    metrics = score_cases(run, Classifier.load(run), striped, cases.subset(thirds, "test"), "test")
    assert list(metrics["splits"]) == ["val", "test"]
    test = metrics["splits"]["test"]
    scores = {s["name"]: s for s in test["scores"] if not s["label"]}
    assert test["n_cases"] == 20
    assert test["n_failed"] == 0
    assert scores["auc"]["value"] > 0.9
    assert scores["accuracy"]["value"] > scores["accuracy"]["baseline"] + 0.2
    table = run.predictions().to_pandas()
    assert table["split"].value_counts().to_dict() == {"val": 20, "test": 20}
    np.testing.assert_allclose(table["p_a"] + table["p_b"], 1)
    assert {p.name for p in run.path.iterdir()} == {
        "plan.json", "split.json", "normalizer.json", "model.safetensors", "metrics.json",
        "predictions.parquet", "trust.json", "networks",
    }  # fmt: skip


def test_order_of_images_and_of_cases_does_not_matter(striped, trained) -> None:
    classifier = Classifier.load(trained[0])
    images = [striped.volumes[f"{n:016x}"] for n in range(5)]
    forward = classifier.predict(images)
    np.testing.assert_allclose(classifier.predict(images[::-1]), forward, atol=1e-6)
    together = classifier.probabilities([[classifier.image(image)] for image in images])
    alone = np.stack([classifier.predict([image]) for image in images])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    with pytest.raises(DataError, match="at least one image"):
        classifier.predict([])


def test_same_plan_data_and_seed_give_the_same_hash_and_weights(striped, thirds, tmp_path) -> None:
    one, _ = train(striped, thirds, tmp_path / "one", budget={"steps": 4})
    two, _ = train(striped, thirds, tmp_path / "two", budget={"steps": 4})
    other, _ = prepare(striped, thirds, tmp_path / "other", budget={"steps": 4}, seed=1)
    assert one.id == two.id == plan_id(one.plan)
    assert other.id != one.id
    for name, value in one.weights().items():
        assert (value == two.weights()[name]).all()
    same = {"task": "classify", "seed": 0}
    assert find_run(same, tmp_path / "one").id == one.id
    assert find_run(same, tmp_path / "nothing") is None
    with pytest.raises(RunError, match="different: seed"):
        find_run({"task": "classify", "seed": 5}, tmp_path / "one")


def test_unreadable_image_is_left_out_in_training_and_a_failure_in_scoring(
    striped, thirds, tmp_path
) -> None:
    striped.volumes[f"{3:016x}"] = None
    striped.volumes[f"{75:016x}"] = None
    striped.volumes[f"{76:016x}"] = Volume(np.zeros((1, 28, 28, 1)), flat_affine())
    run, cases = train(striped, thirds, tmp_path / "run", budget={"steps": 4})
    assert any(f"{3:016x}" in line and "ends early" in line for line in run.audit())
    test = cases.subset(thirds, "test")
    metrics = score_cases(run, Classifier.load(run), striped, test, "test")
    assert metrics["splits"]["test"]["n_failed"] == 2
    rows = run.predictions().to_pandas().query("split == 'test' and failed")
    assert len(rows) == 2
    assert rows["predicted"].isna().all()
    assert any("constant" in reason for reason in rows["reason"])


def test_a_missing_modality_never_raises(memory, tmp_path) -> None:
    rng = np.random.default_rng(0)
    items = []
    for patient in range(24):
        sign = patient % 2
        ct = rng.normal(40, 60, (1, 20, 24, 12)).astype(np.float32)
        ct[:, 5:15, 5:15] += 300 * sign
        xray = rng.normal(0, 1, (1, 40, 32, 1)).astype(np.float32) + 0.0
        xray[:, 10:20] += 4 * sign
        label = ["well", "ill"][sign]
        affine = np.diag([-2.0, -2.0, 5.0, 1.0])
        both = [
            Volume(ct, affine, modality="CT", unit="HU"),
            Volume(xray, flat_affine(), modality="DX", calibrated=False),
        ]
        for volume in both[: 1 + patient % 3 // 1] if patient % 3 else both[patient // 3 % 2 :][:1]:
            items.append({"volume": volume, "label": label, "patient": f"p-{patient:02}"})
    cohort = memory.of(items)
    rows = {row["key"]: "train" if int(row["patient"][2:]) < 16 else "val" for row in cohort.rows}
    run, cases = train(cohort, rows, tmp_path / "run", budget={"steps": 6})
    assert cases.kind == "patient"
    assert run.normalizer().fitted.keys() == {"CT HU"}
    classifier = Classifier.load(run)
    for images in (both, both[:1], both[1:]):
        assert classifier.predict(images).sum() == pytest.approx(1)


def test_views_keep_proportions_and_cover_a_volume(memory) -> None:
    decisions = {"input": {"size": 32, "slices": 4, "spatial_dims": 2, "channels": 1}}
    data = np.zeros((1, 40, 20, 9), np.float32)
    data[0, :, :, :] = np.arange(9) * 10 + 1
    data[0, 0, 0] = 0
    volume = Volume(data, np.diag([1.0, 1.0, 6.0, 1.0]))
    views = make_views(volume, decisions, Normalizer())
    assert views.shape == (4, 1, 32, 32)
    middle = views[:, 0, 16, 16].astype(float)
    assert (np.diff(middle) > 0).all()
    assert (views[0, 0, :, 0] == views[0, 0].min()).all()  # padding beside 32 x 16
    color = Volume(
        np.random.default_rng(0).integers(0, 255, (3, 30, 30, 1)).astype(np.uint8), flat_affine()
    )
    decisions["input"]["channels"] = 3
    assert make_views(color, decisions, Normalizer()).shape == (1, 3, 32, 32)
    gray = Volume(color.data[:1], flat_affine())
    assert make_views(gray, decisions, Normalizer()).shape == (1, 3, 32, 32)
    decisions["input"] |= {"spatial_dims": 3, "channels": 1}
    assert make_views(volume, decisions, Normalizer()).shape == (1, 1, 32, 32, 32)


def test_plan_follows_the_fingerprint() -> None:
    found = {
        "cases": 100, "images": 100, "images_per_case": 1.0, "volumes": 0, "color": 0,
        "cases_per_class": {"0": 75, "1": 25}, "modalities": {"US": 100}, "planes": {"": 100},
        "scanners": {"a": 60, "b": 35, "c": 5}, "median_side": 28.0, "median_longest_side": 28.0,
        "median_depth": 28.0,
    }  # fmt: skip
    target = Target("answer", "binary", ("0", "1"))

    def decide(model="auto", **changes):
        return planning.decide(
            {**found, **changes}, target, ["0"] * 75 + ["1"] * 25,
            model=model, budget={"minutes": 1}, case="image",
        )  # fmt: skip

    small = decide()
    assert small["networks"][0]["network"]["options"]["stem"] == "small"
    assert small["input"] == {"size": 28, "slices": 8, "spatial_dims": 2, "channels": 1}
    assert small["networks"][0]["augmentation"]["flips"] == [0]
    assert small["class_weights"][1] > small["class_weights"][0]
    assert small["facts"] == {"modality": [], "plane": [], "scanner": ["a", "b"]}
    assert {head["head"] for head in small["frozen"][0]["heads"]} == {"logistic", "knn", "mlp"}
    assert all(head["pooling"] == "mean" for head in small["frozen"][0]["heads"])
    xray = decide(
        median_side=2000.0, median_longest_side=2000.0, modalities={"DX": 100}, model="vgg11"
    )
    assert xray["input"]["size"] == 224
    assert (xray["networks"][0]["size"], xray["networks"][0]["network"]["options"]["stem"]) == (
        128, "large",
    )  # fmt: skip
    assert xray["networks"][0]["augmentation"]["flips"] == []
    assert xray["frozen"] == []
    cube = decide(volumes=100, model="efficientnet_lite0:imagenet:acs")
    assert cube["input"]["spatial_dims"] == 3
    assert cube["networks"][0]["network"]["options"]["stem"] == "medium"
    assert (small["normalization"], cube["normalization"]) == ("display", "mad")
    large = decide(volumes=100, median_longest_side=200.0, median_side=200.0)
    assert large["input"]["spatial_dims"] == 2
    assert large["input"]["slices"] == 8
    deep = decide(volumes=10, median_longest_side=200.0, median_side=200.0, median_depth=70.0)
    assert deep["input"]["slices"] == 18
    assert decide(color=3)["input"]["channels"] == 3
    sets = decide(images_per_case=3.0)
    assert sets["networks"][0]["pooling"] == "attention"
    poolings = {head["pooling"] for head in sets["frozen"][0]["heads"]}
    assert poolings == {"mean", "max", "mean+max", "attention", "transformer"}
    with pytest.raises(UsageError, match="Did you mean 'resnet18'"):
        decide(model="resnet81")


def test_minutes_are_kept_and_written_as_steps(striped, thirds, tmp_path) -> None:
    start = time.monotonic()
    run, _ = train(striped, thirds, tmp_path / "run", budget={"minutes": 0.3})
    assert time.monotonic() - start < 0.3 * 60 + 2
    measured = read_json(run.path / "plan.json")["measured"]["networks"][NETWORK]
    assert measured["steps"] >= 10
    with pytest.raises(BudgetError, match="minutes more"):
        train(striped, thirds, tmp_path / "no", budget={"minutes": 0.001})


def test_what_takes_too_long_is_left_out_and_said(
    striped, thirds, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def takes(spec, *_given, **_options):
        return 1000.0 if spec["head"] == "logistic" else 0.1

    def none_fits(*_args, **_options):
        raise BudgetError("0 steps fit")

    monkeypatch.setattr(candidates, "seconds_to_crossfit", takes)
    monkeypatch.setattr(candidates, "measure", none_fits)
    budget = {"minutes": 5}
    run, cases = prepare(striped, thirds, tmp_path / "run", budget=budget, model="auto")
    run = train_run(run, striped, cases, started=time.monotonic())
    assert run.finished
    left_out = run.plan["measured"]["left_out"]
    assert left_out.keys() == {"efficientnet_lite0-64-logistic-mean", "resnet18-28"}
    assert all(any(name in line and why in line for line in run.audit())
               for name, why in left_out.items())  # fmt: skip
    assert set(run.plan["measured"]["candidates"]) == {
        "efficientnet_lite0-64-knn", "efficientnet_lite0-64-mlp",
    }  # fmt: skip
    monkeypatch.undo()
    late, _ = prepare(striped, thirds, tmp_path / "late", budget=budget, model="frozen")
    with pytest.raises(BudgetError, match=r"nothing can be trained: .*no time is left; give more"):
        train_run(late, striped, cases, started=time.monotonic() - 300)
    late = train_run(Run.load(late.path), striped, cases, started=time.monotonic())
    assert late.finished  # with more time, by the same plan


def test_labels_become_classes_or_a_refusal(striped, memory) -> None:
    with pytest.raises(UsageError, match="Did you mean 'answer'"):
        classification_cases(striped, "anser")
    with pytest.raises(UsageError, match="case must be one of"):
        classification_cases(striped, "answer", "visit")
    striped.rows[0]["patient"] = striped.rows[1]["patient"]
    with pytest.raises(CohortError, match="several labels"):
        classification_cases(striped, "answer", "patient")
    assert classification_cases(striped, "answer").kind == "image"
    for number, row in enumerate(striped.rows):
        row["label_answer"] = float(number % 11)
    cases = classification_cases(striped, None)
    assert class_order(case.truth for case in cases.cases) == [str(n) for n in range(11)]
    striped.rows[0]["label_answer"] = 0.5
    with pytest.raises(UsageError, match=r"holds the number 0\.5"):
        classification_cases(striped, "answer", target_kind="multiclass")
    for row in striped.rows:
        row["label_answer"] = "same"
    with pytest.raises(CohortError, match="2 to 100 classes, got 1"):
        classification_cases(striped, "answer")


def test_flawed_images_stay_out_of_training(striped, thirds) -> None:
    striped.errors = [f"{0:016x}", f"{75:016x}"]
    cases = classification_cases(striped, "answer")
    assert len(cases.subset(thirds, "train")) == 49
    assert len(cases.subset(thirds, "test")) == 20


def test_a_segmentation_network_is_no_classifier() -> None:
    network = {"name": "unet", "spatial_dims": 2, "in_channels": 1, "options": {}}
    with pytest.raises(UsageError, match="classifier's model must be"):
        new_model({"network": {**network, "weights": "random"}}, 2, 0)


def test_a_run_of_another_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no run folder"):
        Run.load(tmp_path)
    (tmp_path / "plan.json").write_text('{"format": 99}')
    with pytest.raises(RunError, match="format 1"):
        Run.load(tmp_path)
