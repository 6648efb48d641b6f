# SPDX-License-Identifier: Apache-2.0
"""A classifier and one exam: any formats in one case, broken images, reasons, reports, refusals."""

from __future__ import annotations

import csv
import io as streams
import json
import os
import shutil
import zipfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is first imported

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.data import get_testdata_file
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from vesalius import io
from vesalius.cli.main import app
from vesalius.cohorts import Cohort
from vesalius.cohorts.splits import make_split
from vesalius.errors import CohortError, DataError, RunError, UsageError
from vesalius.flows.evaluate import evaluate
from vesalius.flows.predict import predict
from vesalius.flows.predicting.prediction import Prediction
from vesalius.flows.scan import scan
from vesalius.flows.train import train
from vesalius.tasks.classify.predict import Classifier
from vesalius.tasks.run import Run
from vesalius.volume import Volume

SIDE = 28


def stripes(number: int) -> np.ndarray:
    """Return `(SIDE, SIDE)` in 0 to 255: stripes one way or the other, in noise."""
    rng = np.random.default_rng(number)
    wave = np.repeat(np.sin(np.arange(SIDE) * 0.9 + rng.uniform(0, 6))[None], SIDE, axis=0)
    return (128 + 50 * (wave if number % 2 else wave.T) + rng.normal(0, 20, wave.shape)).clip(
        0, 255
    )


def folders(root: Path, names: tuple[str, ...], count: int, first: int = 0) -> Path:
    """Write `count` pictures, one folder a class, scan them and return the cohort's folder."""
    for number in range(first, first + count):
        folder = root / "data" / names[number % len(names)]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(stripes(number).astype(np.uint8)).save(folder / f"{number:03}.png")
    scan(root / "data", out=root / "cohort", workers=1)
    return root / "cohort"


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folders(tmp_path_factory.mktemp("stripes"), ("along", "across"), 40)


@pytest.fixture(scope="module")
def run(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("run") / "run"
    return train("classify", cohort, steps=4, model="resnet10", out=out)


def kept(run: Run, *splits: str) -> tuple[str, str]:
    """Return, as text, the scores and the predictions that a run holds of some subsets."""
    scores = [Run.load(run.path).metrics["splits"][name] for name in splits]
    table = run.predictions().to_pandas()
    return json.dumps(scores), table[table["split"].isin(splits)].to_csv(index=False)


@pytest.fixture
def exam(tmp_path: Path) -> Path:
    """Four images of one case: gray, color and 16-bit pictures, and a volume."""
    folder = tmp_path / "exam"
    folder.mkdir()
    gray = stripes(100)
    Image.fromarray(gray.astype(np.uint8)).save(folder / "a.png")
    color = np.stack([gray, 0.8 * gray, 0.5 * gray], axis=-1)
    Image.fromarray(color.astype(np.uint8)).save(folder / "b.png")
    Image.fromarray((gray * 200).astype(np.uint16)).save(folder / "c.png")
    deep = np.stack([stripes(102 + 2 * n) for n in range(12)], axis=-1).astype(np.float32)
    io.write(Volume(deep[None], np.diag([1.0, 1.0, 3.0, 1.0])), folder / "d.nii.gz")
    return folder


def written(out: Path) -> dict:
    return json.loads((out / "prediction.json").read_text())


def rows(out: Path) -> list[dict]:
    return list(csv.DictReader(streams.StringIO((out / "prediction.csv").read_text())))


def probabilities(found: Prediction) -> list[float]:
    return [found.probabilities[name] for name in ("across", "along")]


def test_images_of_all_kinds_are_one_case(run: Run, exam: Path, tmp_path: Path) -> None:
    found = predict(run.path, exam, out=tmp_path / "out")
    assert sum(found.probabilities.values()) == pytest.approx(1)
    assert found.notes == ()
    record = written(tmp_path / "out")
    assert [entry["used"] for entry in record["images"]] == [True] * 4
    assert sorted(entry["format"] for entry in record["images"]) == ["nifti", "png", "png", "png"]
    # The classifier itself, given the same volumes in another order, says the same.
    volumes = [io.read(path) for path in sorted(exam.iterdir(), reverse=True)]
    again = Classifier.load(run).predict(volumes)
    np.testing.assert_allclose(probabilities(found), again, atol=1e-6)
    alone = predict(run.path, exam / "d.nii.gz", out=tmp_path / "alone")
    assert probabilities(alone) != pytest.approx(probabilities(found), abs=1e-6)


def test_names_and_order_of_files_do_not_matter(run: Run, exam: Path, tmp_path: Path) -> None:
    found = predict(run.path, exam, out=tmp_path / "out")
    for old, new in (("a.png", "z.png"), ("d.nii.gz", "0.nii.gz")):
        (exam / old).rename(exam / new)
    moved = predict(run.path, exam, out=tmp_path / "moved")
    assert probabilities(moved) == pytest.approx(probabilities(found), abs=1e-6)


def test_json_csv_and_lines_say_the_same(run: Run, exam: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    found = predict(run.path, exam, out=out, format="json")
    record, table = written(out), rows(out)
    assert record["run"] == run.id
    assert record["probabilities"] == dict(found.probabilities)
    assert {row["answer"]: float(row["value"]) for row in table} == record["probabilities"]
    assert {row["target"] for row in table} == {record["target"]}
    best = max(found.probabilities, key=lambda name: found.probabilities[name])
    assert found.predicted == record["predicted"] == best
    assert record["files"] == ["prediction.csv"]
    assert {path.name for path in found.files} == {"prediction.json", "prediction.csv"}
    said = json.loads(json.dumps(found.to_json()))
    assert said["probabilities"] == record["probabilities"]
    first = f"{best}: {found.probabilities[best]:.3f}"
    assert found.lines()[0] == first


def test_an_unreadable_image_among_others_is_left_out_and_named(
    run: Run, exam: Path, tmp_path: Path
) -> None:
    whole = predict(run.path, exam, out=tmp_path / "whole")
    cut = (exam / "a.png").read_bytes()
    (exam / "a2.png").write_bytes(cut[: len(cut) // 2])
    Image.fromarray(np.full((SIDE, SIDE), 7, np.uint8)).save(exam / "a3.png")
    (exam / "notes.txt").write_text("no image")
    found = predict(run.path, exam, out=tmp_path / "out", explain=True)
    assert probabilities(found) == pytest.approx(probabilities(whole), abs=1e-6)
    assert len(found.notes) == 3
    assert sum("cannot be read" in note for note in found.notes) == 2
    assert any("left out" in note and "constant" in note for note in found.notes)
    record = written(tmp_path / "out")
    assert record["notes"] == list(found.notes)
    assert [entry["used"] for entry in record["images"]].count(True) == 4
    (lost,) = [entry for entry in record["images"] if not entry["used"]]
    assert "constant" in lost["why"]
    pictures = {f"explain-{entry['image']}.jpg" for entry in record["images"] if entry["used"]}
    assert {path.name for path in found.previews} == pictures
    assert "a2.png" not in json.dumps(record)  # names of files may be names of patients


def test_an_exam_without_a_readable_image_is_refused(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "exam"
    folder.mkdir()
    with pytest.raises(DataError, match="no image of the exam can be classified: none"):
        predict(run.path, folder, out=tmp_path / "out")
    (folder / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(folder / "b.png")
    with pytest.raises(DataError, match=r"no image .*cannot be read.*constant"):
        predict(run.path, folder, out=tmp_path / "out")
    with pytest.raises(UsageError, match="does not exist"):
        predict(run.path, tmp_path / "nowhere", out=tmp_path / "out")
    assert not list((tmp_path / "out").glob("prediction*"))


def test_reasons_are_pictures_and_influences(run: Run, exam: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    found = predict(run.path, exam, out=out, explain=True)
    assert len(found.previews) == 4
    colorful = []
    for path in found.previews:
        picture = np.asarray(Image.open(path).convert("RGB"), float)
        assert path.stat().st_size > 0
        lower = picture[len(picture) // 2 :]
        colorful.append(np.ptp(lower, axis=2).std())
    assert max(colorful) > 3  # heat, here and not there
    influences = [entry["influence"] for entry in written(out)["images"]]
    assert len(influences) == 4
    assert all(isinstance(value, float) for value in influences)
    best = found.predicted
    classifier, volumes = Classifier.load(run), [io.read(p) for p in sorted(exam.iterdir())]
    rest = classifier.predict(volumes[1:])[classifier.classes.index(best)]
    assert influences[0] == pytest.approx(found.probabilities[best] - rest, abs=1e-6)
    single = predict(run.path, exam / "a.png", out=tmp_path / "single", explain=True)
    assert [entry["influence"] for entry in single.answer["images"]] == [None]
    assert len(single.previews) == 1


def test_an_earlier_answer_in_the_folder_is_replaced(run: Run, exam: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    predict(run.path, exam, out=out, explain=True)
    predict(run.path, exam / "b.png", out=out)
    assert {path.name for path in out.iterdir()} == {"prediction.json", "prediction.csv"}
    assert len(written(out)["images"]) == 1


@pytest.fixture
def dicom(tmp_path: Path) -> Path:
    folder = tmp_path / "dicom"
    folder.mkdir()
    shutil.copy(get_testdata_file("CT_small.dcm", download=False), folder / "slice")
    return folder


def test_a_dicom_exam_gets_a_report_that_refers_to_it(
    run: Run, dicom: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    found = predict(run.path, dicom, out=out)
    report = pydicom.dcmread(out / "report.dcm")
    source = pydicom.dcmread(dicom / "slice")
    assert report.Modality == "SR"
    assert report.PatientID == source.PatientID
    text = str(report)
    assert source.SOPInstanceUID in text
    assert source.StudyInstanceUID == report.StudyInstanceUID
    assert found.predicted in text
    numbers = [float(e.value) for e in report.iterall() if e.keyword == "NumericValue"]
    for value in found.probabilities.values():
        assert min(abs(number - value) for number in numbers) < 1e-3
    assert written(out)["files"] == ["prediction.csv", "report.dcm"]
    plain = predict(run.path, dicom, out=tmp_path / "json", format="json")
    assert not (tmp_path / "json" / "report.dcm").exists()
    assert probabilities(plain) == probabilities(found)


def test_a_report_needs_dicom_files_throughout(
    run: Run, dicom: Path, exam: Path, tmp_path: Path
) -> None:
    shutil.copy(exam / "a.png", dicom / "a.png")
    found = predict(run.path, dicom, out=tmp_path / "out")  # auto: then there is none
    assert {path.name for path in found.files} == {"prediction.json", "prediction.csv"}
    for folder in (dicom, exam):
        with pytest.raises(UsageError, match="refers to the DICOM files of the exam"):
            predict(run.path, folder, out=tmp_path / "no", format="dicom-sr")
    assert not list((tmp_path / "no").iterdir())


def test_a_zip_of_dicom_files_is_answered_as_its_folder(
    run: Run, dicom: Path, tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "exam.zip", "w") as archive:
        archive.write(dicom / "slice", "study/slice")
    found = predict(run.path, tmp_path / "exam.zip", out=tmp_path / "out")
    plain = predict(run.path, dicom, out=tmp_path / "plain")
    assert probabilities(found) == pytest.approx(probabilities(plain), abs=1e-6)
    with pytest.raises(UsageError, match="unpack it"):
        predict(run.path, tmp_path / "exam.zip", out=tmp_path / "no", format="dicom-sr")


def test_the_modality_that_is_given_is_that_of_images_without_one(
    run: Run, exam: Path, dicom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    plain = Classifier.image

    def image(self, volume, facts=None):
        seen.append(volume.modality)
        return plain(self, volume, facts)

    monkeypatch.setattr(Classifier, "image", image)
    predict(run.path, exam, out=tmp_path / "out")
    predict(run.path, exam, out=tmp_path / "out", modality="US")
    shutil.copy(exam / "a.png", dicom / "a.png")
    predict(run.path, dicom, out=tmp_path / "out", modality="MG")
    assert seen[:8] == [""] * 4 + ["US"] * 4
    assert sorted(seen[8:]) == ["CT", "MG"]  # a DICOM file states its own


def test_formats_belong_to_a_task(run: Run, exam: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="written as auto, json or dicom-sr, not as 'nifti'"):
        predict(run.path, exam, out=tmp_path / "out", format="nifti")
    with pytest.raises(UsageError, match="Did you mean 'json'"):
        predict(run.path, exam, out=tmp_path / "out", format="jsn")
    segmenter = Run(tmp_path, {"id": "s", "task": "segment", "measured": {"finished": True}})
    for asked in ({"format": "json"}, {"explain": True}):
        with pytest.raises(UsageError, match=r"belongs? to a classifier's answer"):
            predict(segmenter, exam, out=tmp_path / "out", **asked)
    begun = Run(tmp_path, {"id": "c", "task": "classify", "measured": {}})
    with pytest.raises(RunError, match="is not finished"):
        predict(begun, exam, out=tmp_path / "out")


def test_a_class_that_the_run_never_saw_is_named(run: Run, tmp_path: Path) -> None:
    other = folders(tmp_path, ("along", "across", "oblique"), 9, first=500)
    with pytest.raises(CohortError, match=r"has no class 'oblique'.*knows 'across', 'along'"):
        evaluate(run.path, other)


def test_scores_of_another_cohort_stand_beside_the_runs_own(
    run: Run, cohort: Path, tmp_path: Path
) -> None:
    held = Run(shutil.copytree(run.path, tmp_path / "run"), run.plan)
    other = folders(tmp_path, ("along", "across"), 12, first=600)
    name = f"cohort-{Cohort.open(other).digest()[:8]}"
    own = evaluate(held, cohort)
    assert own["scored"] == "test"
    page = (held.path / "report.html").read_text()
    before = kept(held, "val", "test")

    done = CliRunner().invoke(app, ["evaluate", str(held.path), str(other)])
    assert done.exit_code == 0, done.output
    said = [line for line in done.stdout.splitlines() if not line.startswith("report:")]
    assert said
    assert all(line.startswith(f"{name} ") for line in said)
    assert any(line.startswith(f"{name} auc") for line in said)
    metrics = Run.load(held.path).metrics
    assert metrics["scored"] == name
    assert list(metrics["splits"]) == ["val", "test", name]
    assert kept(held, "val", "test") == before
    part, table = metrics["splits"][name], held.predictions().to_pandas()
    assert part["n_cases"] == 12  # all of them: its split is not the run's
    rows = table[table["split"] == name]
    assert set(rows["key"]) == {row["key"] for row in Cohort.open(other).iter_rows(["key"])}
    auc = next(s["value"] for s in part["scores"] if s["name"] == "auc" and not s["label"])
    assert auc == pytest.approx(roc_auc_score(rows["truth"] == "along", rows["p_along"]))

    report = (held.path / "report.html").read_text()
    assert name in report
    assert name not in page
    content = json.loads((held.path / "report.json").read_text())
    assert content["split"] == name
    assert content["metrics"] == {k: v for k, v in part.items() if k != "left_out"}
    card = (held.path / "card.md").read_text()
    assert f"### {name.capitalize()} subset: 12 cases" in card
    assert "### Test subset: " in card

    third = folders(tmp_path / "third", ("along", "across"), 10, first=700)
    both = evaluate(held, third)
    assert both["splits"][name] == part
    assert both["splits"][both["scored"]]["n_cases"] == 10
    again = evaluate(held, cohort)  # the run's own, and its report, once more
    assert again["scored"] == "test"
    assert kept(held, "val", "test") == before
    assert set(again["splits"]) == {"val", "test", name, both["scored"]}
    assert json.loads((held.path / "report.json").read_text())["split"] == "test"


def test_a_cohort_that_changed_is_scored_under_a_new_name(run: Run, tmp_path: Path) -> None:
    held = Run(shutil.copytree(run.path, tmp_path / "run"), run.plan)
    other = folders(tmp_path, ("along", "across"), 8, first=800)
    first = evaluate(held, other)["scored"]
    assert evaluate(held, other)["scored"] == first
    counts = held.predictions().to_pandas()["split"].value_counts()
    assert counts[first] == 8  # scored twice, held once
    folders(tmp_path, ("along", "across"), 2, first=810)
    second = evaluate(held, other)
    assert second["scored"] != first
    assert (second["splits"][first]["n_cases"], second["splits"][second["scored"]]["n_cases"]) == (
        8, 10,
    )  # fmt: skip


def test_training_on_one_class_is_refused(cohort: Path, tmp_path: Path) -> None:
    opened = Cohort.open(cohort)
    label = f"label_{opened.targets[0]}"
    split = make_split(opened, target=[opened.targets[0]], seed=0)
    known = {row["key"]: row[label] for row in opened.to_arrow().to_pylist()}
    moved = {
        key: "test" if name == "train" and known[key] == "along" else name
        for key, name in split.rows.items()
    }
    type(split)(moved).save(tmp_path / "split.json")
    with pytest.raises(CohortError, match=r"\d+ cases of 1 class.*two classes at least"):
        train("classify", cohort, steps=1, split=tmp_path / "split.json", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_cohort_without_any_label_is_refused(tmp_path: Path) -> None:
    bare = folders(tmp_path, (".",), 4)
    with pytest.raises(UsageError, match=r"--target must name one label.*it has none"):
        train("classify", bare, steps=1, out=tmp_path / "run")
    with pytest.raises(UsageError, match="has no label 'diagnosis'"):
        train("classify", bare, target="diagnosis", steps=1, out=tmp_path / "run")


def test_a_file_that_broke_after_the_scan_is_left_out_and_named(tmp_path: Path) -> None:
    cohort = folders(tmp_path, ("along", "across"), 40)
    opened = Cohort.open(cohort)
    split = make_split(opened, target=[opened.targets[0]], seed=0)
    broken = {name: split.keys(name)[0] for name in ("train", "val", "test")}
    for key in broken.values():
        path = tmp_path / "data" / opened.row(key)["files"][0]
        path.write_bytes(path.read_bytes()[:60])
    run = train("classify", cohort, steps=2, model="resnet10", out=tmp_path / "run")
    lines = [line for line in run.audit() if "could not be prepared" in line]
    assert len(lines) == 2
    assert all(any(broken[name] in line for line in lines) for name in ("train", "val"))
    assert run.metrics["splits"]["val"]["n_failed"] == 1
    entry = evaluate(run.path, cohort)["splits"]["test"]
    assert entry["n_failed"] == 1
    lost = Run.load(run.path).predictions().to_pandas().query("failed")
    assert set(lost["key"]) == {broken["val"], broken["test"]}
    assert all(key in reason for key, reason in zip(lost["key"], lost["reason"], strict=True))
