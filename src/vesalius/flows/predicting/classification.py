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
from vesalius.flows.predicting.prediction import Prediction
from vesalius.types import Json

if TYPE_CHECKING:
    from vesalius.io.limits import Limits
    from vesalius.tasks.classify.predict import Answer, Classifier
    from vesalius.tasks.run import Run
    from vesalius.volume import Volume

REPORT = "dicom-sr"


def classify_exam(
    run: Run,
    exam: Path,
    folder: Path,
    wanted: str,
    *,
    modality: str,
    explained: bool,
    limits: Limits | None,
) -> Prediction:
    """Answer for all readable images of an exam as one case; see `flows.predict.predict`."""
    from vesalius.flows.patient_images import patient_images
    from vesalius.tasks.classify.predict import Classifier

    if wanted not in ("auto", "json", REPORT):
        raise UsageError(
            f"the answer of a classifier is written as auto, json or {REPORT}, not as '{wanted}'"
        )
    if not exam.exists():
        raise UsageError(f"the exam '{exam}' does not exist; give a file, a folder or a zip")
    classifier = Classifier.load(run)
    notes: list[str] = []
    images, volumes = [], []
    for number, (volume, _) in enumerate(patient_images(exam, notes, limits), 1):
        known = replace(volume, modality=volume.modality or modality)
        try:
            images.append(classifier.image(known))
            volumes.append(known)
        except DataError as error:
            notes.append(f"image {number} left out: {error}")
    if not images:
        raise DataError(f"no image of the exam can be classified: {'; '.join(notes) or 'none'}")
    answer = classifier.answers([images])[0]
    found = _answer_json(classifier, answer)
    files = [_table(found, folder / "prediction.csv")]
    previews: list[Path] = []
    if explained:
        weights, previews = _explain(classifier, images, folder)
        found["influence"] = weights
    if wanted == REPORT or (wanted == "auto" and all(_is_dicom(v) for v in volumes)):
        files.append(_report(run, answer, found, volumes, folder / "report.dcm"))
    path = folder / "prediction.json"
    record = {"run": run.id, "task": "classify", "images": len(images), **found}
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
    writer.writerow(["target", "answer", "value", "in_label_set", "abstained"])
    rows = found["probabilities"] or {"value": found.get("value")}
    for name, value in rows.items():
        held = name in found["label_set"] if found["label_set"] else ""
        writer.writerow([found["target"], name, value, held, found["abstained"]])
    return write_text(path, text.getvalue())


def _explain(classifier: Classifier, images: list, folder: Path) -> tuple[list, list[Path]]:  # type: ignore[type-arg]
    """Return each image's influence and the pictures of where the classifier looked."""
    from vesalius.reporting.heatmaps import heat_picture
    from vesalius.tasks.classify.explain import explain

    found = explain(classifier, images)
    paths = []
    for number, (image, heat) in enumerate(zip(images, found.heat, strict=False), 1):
        content = heat_picture(image.views, heat)
        path = folder / f"explain-{number}.jpg"
        paths.append(write_atomically(path, lambda stream, c=content: stream.write(c)))  # type: ignore[misc]
    weights = [None if math.isnan(value) else float(value) for value in found.influence]
    return weights, paths


def _is_dicom(volume: Volume) -> bool:
    return volume.source.format == "dicom"


def _report(run: Run, answer: Answer, found: Json, volumes: list[Volume], path: Path) -> Path:
    """Write the answer as a DICOM structured report that refers to the exam's files."""
    from vesalius.io.dicom.measurement_report import write_measurement_report
    from vesalius.tasks.targets import read_labels
    from vesalius.version import __version__

    kind = run.decisions["target"]["kind"]
    files = [Path(name) for volume in volumes for name in volume.source.files]
    if not all(_is_dicom(volume) for volume in volumes):
        raise UsageError(
            f"format '{REPORT}' refers to the DICOM files of the exam, and some of its images are "
            "none; choose auto or json"
        )
    label_set, predicted, reasons = found["label_set"] or None, found["predicted"] or None, ""
    if answer.abstained or answer.reason:
        reasons = "; ".join(filter(None, (answer.abstained, answer.reason)))
    if kind == "multilabel" and predicted is not None:
        # The report has one category: the likeliest label; its set holds all that are present.
        label_set = list(read_labels(predicted))
        predicted = max(label_set, key=lambda name: found["probabilities"][name])
    elif kind == "multilabel" and not answer.abstained:
        reasons = f"no label reaches one half{'; ' + reasons if reasons else ''}"
    elif kind == "regression":
        predicted = None  # its value says it
    return write_measurement_report(
        path,
        source_files=sorted(set(files)),
        finding=found["target"],
        probabilities=found["probabilities"],
        label_set=label_set,
        predicted=predicted,
        reason=reasons,
        algorithm_name="Vesalius",
        algorithm_version=__version__,
        run_id=run.id,
        values={found["target"]: (found["value"], "1")} if "value" in found else None,
    )
