# SPDX-License-Identifier: Apache-2.0
"""One exam, taken as one case, classified: JSON, CSV, a DICOM report, pictures of why."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from vesalius.errors import DataError, UsageError
from vesalius.files import write_atomically, write_json, write_text
from vesalius.flows.predicting.beside import classified, study_of
from vesalius.flows.predicting.loaded import model_of
from vesalius.flows.predicting.maker import maker_of
from vesalius.flows.predicting.prediction import Prediction
from vesalius.flows.predicting.wanted import FHIR, KEY_IMAGES, REPORT, Wanted
from vesalius.types import Json

if TYPE_CHECKING:
    from vesalius.io.limits import Limits
    from vesalius.io.maker import Maker
    from vesalius.tasks.classify.batch import Image
    from vesalius.tasks.classify.predict import Answer, Classifier
    from vesalius.tasks.run import Run
    from vesalius.volume import Volume


def classify_exam(
    run: Run,
    exam: Path,
    folder: Path,
    wanted: Wanted,
    *,
    modality: str,
    explained: bool,
    limits: Limits | None,
) -> Prediction:
    """Answer for all readable images of an exam as one case; see `flows.predict.predict`."""
    from vesalius.flows.patient_images import patient_images
    from vesalius.tasks.classify.predict import Classifier

    if not exam.exists():
        raise UsageError(f"the exam '{exam}' does not exist; give a file, a folder or a zip")
    classifier = model_of(run, Classifier.load)
    notes: list[str] = []
    images, volumes, listed = [], [], []
    for number, (volume, _) in enumerate(patient_images(exam, notes, limits), 1):
        known = volume if _is_dicom(volume) else replace(
            volume, modality=modality or volume.modality
        )  # fmt: skip
        entry: Json = {"image": number, "format": volume.source.format, "used": True, "why": ""}
        listed.append(entry)
        try:
            images.append(classifier.image(known))
            volumes.append(known)
        except DataError as error:
            entry |= {"used": False, "why": str(getattr(error, "reason", error))}
            notes.append(f"image {number} left out: {entry['why']}")
    if not images:
        raise DataError(f"no image of the exam can be classified: {'; '.join(notes) or 'none'}")
    form = wanted.first
    reported = form == REPORT or (form == "auto" and all(_is_dicom(v) for v in volumes))
    if form == REPORT and not all(_is_dicom(v) for v in volumes):
        raise UsageError(
            f"format '{REPORT}' refers to the DICOM files of the exam, and some of its images are "
            "none (of a zip: unpack it); choose auto or json"
        )
    _clear(folder)
    answer = classifier.answers([images])[0]
    found = _answer_json(classifier, answer)
    files = [_table(found, folder / "prediction.csv")]
    previews: list[Path] = []
    if explained:
        used = [entry for entry in listed if entry["used"]]
        previews = _explain(classifier, images, used, folder)
        if not previews:
            notes.append("no heat map: the member that weighs most has no gradient to look at")
    if reported:
        try:
            files.append(_report(run, answer, found, volumes, folder / "report.dcm"))
        except DataError as error:
            if form == REPORT:
                raise
            notes.append(f"no DICOM report: {getattr(error, 'reason', error)}")
    made, left_out = _beside(wanted, run, found, volumes, folder)
    files += made
    notes += left_out
    path = folder / "prediction.json"
    found["images"] = listed
    record = {"run": run.id, "task": "classify", **found}
    write_json(path, {**record, "files": [f.name for f in files], "notes": notes})
    return Prediction(
        "classify",
        (path, *files),
        tuple(previews),
        found["probabilities"],
        (),
        tuple(notes),
        found,
    )


def _clear(folder: Path) -> None:
    """Remove what an earlier answer left in the folder, so that two exams are never mixed."""
    for pattern in (
        "prediction.json", "prediction.csv", "report.dcm", "report.fhir.json", "key-image-1.dcm",
        "explain-*.jpg",
    ):  # fmt: skip
        for path in folder.glob(pattern):
            path.unlink()


def _answer_json(classifier: Classifier, answer: Answer) -> Json:
    import numpy as np

    target, table = classifier.target, np.asarray(answer.probabilities)
    found: Json = {
        "target": target.name,
        "predicted": "" if answer.abstained else target.predicted(table[None])[0],
        "probabilities": {n: float(v) for n, v in zip(target.classes, table, strict=False)},
        "label_set": list(answer.label_set),
        "outlier": answer.outlier,
        "abstained": answer.abstained,
        **({"called": answer.called} if answer.called else {}),
    }
    if target.kind == "regression":
        low, high = answer.interval or (-math.inf, math.inf)
        finite = math.isfinite(low) and math.isfinite(high)
        found |= {"value": float(table[0]), "interval": [low, high] if finite else None}
    return found


def _table(found: Json, path: Path) -> Path:
    """Write one row per class, for a spreadsheet."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["target", "answer", "value", "in_label_set", "called", "abstained"])
    rows = found["probabilities"] or {"value": found.get("value")}
    for name, value in rows.items():
        held = name in found["label_set"] if found["label_set"] else ""
        called = found.get("called", "")
        writer.writerow([found["target"], name, value, held, called, found["abstained"]])
    return write_text(path, text.getvalue())


def _explain(
    classifier: Classifier, images: list[Image], listed: list[Json], folder: Path
) -> list[Path]:
    """Note each image's influence, and write the pictures of where the classifier looked."""
    from vesalius.reporting.heatmaps import heat_picture
    from vesalius.tasks.classify.explain import explain

    found = explain(classifier, images)
    for entry, value in zip(listed, found.influence, strict=True):
        entry["influence"] = None if math.isnan(value) else float(value)
    paths = []
    for entry, image, heat in zip(listed, images, found.heat, strict=False):
        content = heat_picture(image.views, heat)
        path = folder / f"explain-{entry['image']}.jpg"
        paths.append(write_atomically(path, lambda stream, c=content: stream.write(c)))  # type: ignore[misc]
    return paths


def _beside(
    wanted: Wanted, run: Run, found: Json, volumes: list[Volume], folder: Path
) -> tuple[list[Path], list[str]]:
    """Write what is asked for beside the answer; return the files, and what cannot be made."""
    maker, files, notes = maker_of(run), [], []
    sources = [[Path(file) for file in volume.source.files] for volume in volumes]
    for name in wanted.beside:
        try:
            if name == FHIR:
                said = classified(found, study_of(volumes[0], sources[0]), maker)
                files.append(write_json(folder / "report.fhir.json", said))
            elif name == KEY_IMAGES:
                files.append(_key_image(found, volumes[0], sources[0], maker, folder))
        except DataError as error:
            notes.append(f"no {name}: {getattr(error, 'reason', error)}")
    return files, notes


def _key_image(
    found: Json, volume: Volume, sources: list[Path], maker: Maker, folder: Path
) -> Path:
    from vesalius.io.dicom.key_images import write_key_image

    if not _is_dicom(volume):
        raise DataError("it refers to DICOM files, and the first image is none")
    ranked = sorted(found["probabilities"].items(), key=lambda item: -item[1])
    words = [f"{found['target']}: {name} {value:.3f}" for name, value in ranked[:3]]
    if found["abstained"]:
        words = [f"{found['target']}: abstained, {found['abstained']}"]
    elif found.get("value") is not None:
        words = [f"{found['target']}: {found['value']:.4g}"]
    path = folder / "key-image-1.dcm"
    return write_key_image(path, source_files=sources, maker=maker, words=words)


def _is_dicom(volume: Volume) -> bool:
    return volume.source.format == "dicom"


def _report(run: Run, answer: Answer, found: Json, volumes: list[Volume], path: Path) -> Path:
    """Write the answer as a DICOM structured report that refers to the exam's files."""
    from vesalius.io.dicom.derived import sign
    from vesalius.io.dicom.measurement_report import write_measurement_report
    from vesalius.version import __version__

    kind = run.decisions["target"]["kind"]
    files = {Path(name) for volume in volumes for name in volume.source.files}
    values: dict[str, tuple[float, str]] = {}
    probabilities = dict(found["probabilities"])
    if kind == "regression":
        values = {found["target"]: (found["value"], "1")}
        if found["interval"]:
            low, high = found["interval"]
            values |= {"lower bound": (low, "1"), "upper bound": (high, "1")}
    elif kind == "multilabel":  # no single category, and no set that holds it
        values = {f"probability of {n}": (value, "1") for n, value in probabilities.items()}
    one = kind not in ("regression", "multilabel")
    reasons = [answer.abstained, answer.reason]
    if answer.called:
        reasons.append(f"by the operating point: {answer.called}")
    write_measurement_report(
        path,
        source_files=sorted(files),
        finding=found["target"],
        probabilities=probabilities if one else {},
        label_set=(found["label_set"] or None) if one else None,
        predicted=(found["predicted"] or None) if one else None,
        reason="; ".join(filter(None, reasons)),
        algorithm_name="Vesalius",
        algorithm_version=__version__,
        run_id=run.id,
        values=values if not answer.abstained else None,
    )
    return sign(path, maker_of(run))
