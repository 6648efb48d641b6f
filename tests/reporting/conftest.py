# SPDX-License-Identifier: Apache-2.0
"""A small cohort held in memory and finished runs on it, written as training writes them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from vesalius.errors import CohortError, CorruptFile
from vesalius.files import write_json
from vesalius.geometry import flat_affine
from vesalius.metrics import (
    classification_summary,
    compare_masks,
    failed_masks,
    segmentation_summary,
)
from vesalius.metrics.detection import (
    count_scores,
    detection_scores,
    match_images,
    precision_recall,
)
from vesalius.volume import LabelMap, Volume

PATIENTS = 24
CLASSES = ["benign", "malignant"]
STRUCTURES = {1: "liver", 2: "nodule"}
NAME = "DOE^JANE"  # planted where paths are: must never be shown
KINDS = ["cell", "nucleus"]  # that are counted
SMEARS = 16
SPACING = (1.5, 1.5, 4.0)
AFFINE = np.diag([-SPACING[0], -SPACING[1], SPACING[2], 1.0])


class MemoryCohort:
    """What reports use of a cohort, without a disk."""

    def __init__(self, frame, findings, path):
        self.frame, self.found, self.path = frame, findings, path
        self.license, self.version, self.targets = "CC0-1.0 (simulated)", 3, ["diagnosis"]

    def __len__(self):
        return len(self.frame)

    def to_pandas(self, columns=None):
        return self.frame[columns] if columns else self.frame

    def filter(self, where):
        assert where.startswith("key IN (")
        keys = re.findall(r"'([^']+)'", where)
        return MemoryCohort(self.frame[self.frame["key"].isin(keys)], self.found, self.path)

    def iter_rows(self):
        yield from self.frame.to_dict("records")

    def findings(self):
        return self.found

    def digest(self):
        return "d1g35t" * 4

    def read(self, row):
        if row["key"] == key_of(5):
            raise CorruptFile("breaks off", path=f"{NAME}/scan.dcm")
        image, _ = anatomy(row["index"])
        return Volume(image[None], AFFINE, modality=row["modality"])

    def read_mask(self, row):
        if row["index"] % 2:
            raise CohortError("no mask")
        return LabelMap(anatomy(row["index"])[1][None], AFFINE, names=STRUCTURES)


class Smears(MemoryCohort):
    def filter(self, where):
        kept = super().filter(where)
        return Smears(kept.frame, kept.found, kept.path)

    def read(self, row):  # noqa: ARG002 - as the cohort's
        pixels = np.full((3, 80, 60, 1), 200, np.uint8)
        return Volume(pixels, flat_affine(), calibrated=False)


def box(name: str, x: float, y: float, **more) -> dict:
    return {"name": name, "x0": x, "y0": y, "x1": x + 10, "y1": y + 10, **more}


def key_of(index):
    return f"{index * 2654435761 % 2**64:016x}"


def anatomy(index):
    """Return image and labels `(i, j, k)` of one made-up torso."""
    generator = np.random.default_rng(index)
    i, j, k = np.meshgrid(*[np.linspace(-1, 1, n) for n in (64, 48, 12)], indexing="ij")
    labels = np.zeros(i.shape, np.uint8)
    image = np.where(i**2 / 0.9 + j**2 / 0.8 < 0.9, 40.0, -1000.0)
    liver = (i + 0.3) ** 2 / 0.15 + (j + 0.05) ** 2 / 0.25 + k**2 < 0.8
    nodule = (i + 0.35) ** 2 + (j - 0.1) ** 2 + k**2 * 0.2 < 0.03 + 0.01 * (index % 3)
    labels[liver], labels[nodule] = 1, 2
    image[liver], image[nodule] = 110, 70
    return (image + generator.normal(0, 12, i.shape)).astype(np.float32), labels


@pytest.fixture
def cohort(tmp_path):
    rows = []
    for index in range(PATIENTS * 2):
        site = index // 2 % 3
        rows.append(
            {
                "key": key_of(index),
                "index": index,
                "patient": f"p-{index // 2:04x}",
                "study": f"s-{index // 2:04x}",
                "series": f"e-{index:04x}",
                "modality": "MR" if index % 2 else "CT",
                "scanner": f"Simulated {'ABC'[site]}|Model {site}",
                "site": f"i-{site}",
                "kind": "image",
                "format": "dicom",
                "files": [f"{NAME}/{index}.dcm"],
                "label_diagnosis": CLASSES[index // 2 % 3 == 0],
            }
        )
    findings = pd.DataFrame(
        [
            finding(2, "missing-slices", "error", "2 slices are missing after slice 5", 5),
            finding(2, "extreme-noise", "warning", "the signal-to-noise ratio is 1.9", None),
            finding(4, "missing-slices", "error", f"a gap in {NAME}/4.dcm <b>", 7),
            finding(5, "truncated-pixel-data", "error", "900 of 8,192 bytes are there", None),
            {
                **finding(0, "unsupported-format", "warning", f"{NAME}/notes.xyz is refused", None),
                "key": "",
                "file": f"{NAME}/notes.xyz",
            },
        ]
    )
    return MemoryCohort(pd.DataFrame(rows), findings, tmp_path / "cohort-of-doe")


def finding(index, name, severity, message, k):
    return {
        "key": key_of(index),
        "name": name,
        "severity": severity,
        "message": message,
        "evidence": json.dumps({"expected": 1.0000001, "where": f"/data/{NAME}/x.dcm"}),
        "root": "data",
        "file": f"{NAME}/{index}.dcm",
        "slice": k,
    }


def plan(task, cohort):
    return {
        "format": 1,
        "id": "0123456789abcdef",
        "task": task,
        "decisions": {"network": {"name": "resnet", "widths": [16, 32]}, "loss": "cross-entropy"},
        "measured": {"steps": 120, "seconds_per_step": 0.25, "finished": True},
        "audit": ["48 images, 24 patients", "patients are grouped"],
        "command": f"vesalius train {task} /home/{NAME}/{cohort.path.name} --target diagnosis",
        "versions": {"vesalius": "0.1.0", "torch": "2.13.0"},
        "cohort": {"digest": cohort.digest(), "version": 3, "license": cohort.license},
    }


def write_log(path: Path, score):
    lines = [{"event": "start", "step": 0}]
    for step in range(1, 121):
        loss = 0.7 / (1 + step / 40) + 0.05 * np.sin(step)
        lines.append({"event": "step", "step": step, "loss": loss, "lr": 0.01, "seconds": step / 4})
        if step % 20 == 0:
            lines.append(
                {"event": "validation", "step": step, "seconds": step / 4,
                 "scores": {score: 1 - 0.5 / (1 + step / 30)}}
            )  # fmt: skip
    lines.append({"event": "end", "step": 120, "seconds": 31.0})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def subsets(frame):
    order = {name: n for n, name in enumerate(sorted(frame["patient"].unique()))}
    return {
        key: ("test", "train", "val", "test")[order[patient] % 4]
        for key, patient in zip(frame["key"], frame["patient"], strict=True)
    }


@pytest.fixture
def classifier(tmp_path, cohort):
    """A finished classification run; a case is a patient, one of them failed."""
    run = tmp_path / "classifier"
    rows = subsets(cohort.frame)
    generator = np.random.default_rng(0)
    table = []
    for patient, group in cohort.frame.groupby("patient"):
        subset = rows[group["key"].iloc[0]]
        truth = group["label_diagnosis"].iloc[0]
        chance = np.clip(generator.normal(0.7 if truth == "malignant" else 0.3, 0.2), 0.01, 0.99)
        failed = patient == "p-0003"
        table.append(
            {
                "key": patient,
                "patient": patient,
                "split": subset,
                "truth": truth,
                "predicted": CLASSES[int(chance > 0.5)],
                "p_benign": np.nan if failed else 1 - chance,
                "p_malignant": np.nan if failed else chance,
                "loss": -np.log(chance if truth == "malignant" else 1 - chance),
                "failed": failed,
                "reason": f"/data/{NAME}/3.dcm cannot be read" if failed else "",
                "scanner": group["scanner"].iloc[0],
            }
        )
    frame = pd.DataFrame(table)
    test = frame[frame["split"] == "test"].reset_index(drop=True)
    summary = classification_summary(
        test["truth"].tolist(), test[["p_benign", "p_malignant"]].to_numpy(), CLASSES,
        test["patient"].tolist(), failed=test["failed"].to_numpy(),
        groups={"scanner": test["scanner"].tolist()}, draws=200,
    )  # fmt: skip
    _write(run, plan("classify", cohort), frame.drop(columns="scanner"), rows)
    metrics = {"task": "classify", "target": "diagnosis", "classes": CLASSES}
    write_json(run / "metrics.json", {**metrics, "splits": {"test": summary}})
    write_log(run / "log.jsonl", "auc")
    return run


@pytest.fixture
def segmenter(tmp_path, cohort):
    """A finished segmentation run on the CT images, one of them failed."""
    import nibabel

    run = tmp_path / "segmenter"
    rows = subsets(cohort.frame)
    (run / "predictions").mkdir(parents=True)
    table = []
    for row in cohort.frame[cohort.frame["modality"] == "CT"].to_dict("records"):
        truth = anatomy(row["index"])[1]
        found = np.roll(truth, row["index"] % 5, axis=0)
        failed = row["index"] == 6
        score = (
            failed_masks(truth, SPACING, STRUCTURES)
            if failed
            else compare_masks(found, truth, SPACING, STRUCTURES, 2.0)
        )
        file = f"predictions/{row['key']}.nii.gz"
        nibabel.save(nibabel.Nifti1Image(found, AFFINE), run / file)
        table.append(
            {
                "key": row["key"], "patient": row["patient"], "split": rows[row["key"]],
                "failed": failed, "reason": "out of memory" if failed else "",
                "file": "" if failed else file, **score,
            }
        )  # fmt: skip
    frame = pd.DataFrame(table)
    test = frame[frame["split"] == "test"].reset_index(drop=True)
    summary = segmentation_summary(test, list(STRUCTURES.values()), tolerance_mm=2.0, draws=200)
    _write(run, plan("segment", cohort), frame, rows)
    metrics = {"task": "segment", "target": None, "labels": list(STRUCTURES.values())}
    write_json(run / "metrics.json", {**metrics, "splits": {"test": summary}})
    write_log(run / "log.jsonl", "dice")
    return run


@pytest.fixture
def smears(cohort):
    frame = cohort.frame.head(SMEARS).copy()
    frame["boxes"] = [
        json.dumps([box("cell", 5 + 12 * n, 20) for n in range(1 + index % 4)])
        for index in range(SMEARS)
    ]
    return Smears(frame, cohort.found, cohort.path)


@pytest.fixture
def detector(tmp_path, smears):
    """A finished run: it counts one cell too many in image 3, three in image 7, fails at 5."""
    run = tmp_path / "detector"
    run.mkdir()
    rows, found, truth = [], [], []
    for index, row in enumerate(smears.frame.to_dict("records")):
        true = json.loads(row["boxes"])
        extra = {3: 1, 7: 3}.get(index, 0)
        answer = [*true, *(box("cell", 5 + 12 * n, 40) for n in range(extra))]
        failed = index == 5
        said = [] if failed else answer
        rows.append(
            {
                "key": row["key"], "patient": row["patient"], "split": "test",
                "modality": "", "scanner": "", "failed": failed,
                "reason": f"/data/{NAME}/5.png cannot be read" if failed else "",
                "boxes": json.dumps([{"label": b["name"], "probability": 0.9,
                                      **{s: b[s] for s in ("x0", "y0", "x1", "y1")}}
                                     for b in said]),
                "true_cell": len(true), "count_cell": len(said), "expected_cell": len(said),
                "low_cell": max(0, len(said) - 1), "high_cell": None if index == 1 else len(said),
                "true_nucleus": 0, "count_nucleus": 0, "expected_nucleus": 0.0,
                "low_nucleus": 0, "high_nucleus": 0,
            }
        )  # fmt: skip
        corners = np.array([[b[s] for s in ("x0", "y0", "x1", "y1")] for b in said]).reshape(-1, 4)
        found.append((corners, np.full(len(corners), 0.9)))
        truth.append(np.array([[b[s] for s in ("x0", "y0", "x1", "y1")] for b in true]))
    frame = pd.DataFrame(rows)
    frame.to_parquet(run / "predictions.parquet")
    matched = match_images(found, truth)
    patients = frame["patient"].tolist()
    scores = detection_scores(matched, patients, label="cell", draws=100)
    scores += count_scores(
        frame["count_cell"].to_numpy(), frame["true_cell"].to_numpy(), patients, label="cell",
        constant=2, failed=frame["failed"].to_numpy(), draws=100,
    )  # fmt: skip
    summary = {
        "n_cases": SMEARS, "n_patients": len(set(patients)), "n_failed": 1,
        "scores": [score.to_json() for score in scores],
        "precision_recall": {"cell": precision_recall(matched)},
    }  # fmt: skip
    metrics = {"task": "detect", "target": None, "classes": KINDS, "splits": {"test": summary}}
    write_json(run / "metrics.json", metrics)
    write_json(run / "plan.json", plan("detect", smears))
    write_log(run / "log.jsonl", "average_precision_cell")
    return run


def _write(run, planned, predictions, rows):
    run.mkdir(exist_ok=True)
    write_json(run / "plan.json", planned)
    write_json(
        run / "split.json",
        {
            "rows": rows,
            "audit": ["24 groups: patient"],
            "settings": {"seed": 0, "group": "patient"},
        },
    )
    predictions.to_parquet(run / "predictions.parquet")
