# SPDX-License-Identifier: Apache-2.0
"""Label maps of one exam, each on its image's own grid, with volumes and previews."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from vesalius.errors import DataError, UsageError
from vesalius.files import write_atomically, write_json
from vesalius.flows.predicting.prediction import FORMATS, Prediction

if TYPE_CHECKING:
    from vesalius.tasks.run import Run
    from vesalius.volume import LabelMap, Volume


def segment_exam(
    run: Run,
    images: Iterator[Volume],
    folder: Path,
    wanted: str,
    *,
    memory: int | None = None,
    say: Callable[[str], None] | None = None,
) -> Prediction:
    """Answer for each image of an exam; see `flows.predict.predict`."""
    from vesalius.tasks.segment.doubt import Doubt
    from vesalius.tasks.segment.predict import Segmenter
    from vesalius.tasks.segment.scoring import load_quality

    segmenter, quality = Segmenter.load(run), load_quality(run)
    labels = run.decisions["labels"]
    seen = set(run.plan["fingerprint"]["modalities"])
    files, previews, sizes, notes = [], [], [], []
    expected: list[dict[str, float]] = []
    for number, volume in enumerate(images, 1):
        if volume.modality and "" not in seen and volume.modality not in seen:
            notes.append(
                f"image {number} left out: modality {volume.modality}, the run knows "
                f"{', '.join(sorted(seen))}"
            )
            continue
        doubt = Doubt(1 + len(labels))
        try:
            if say is not None:
                say(f"image {number}: {segmenter.layout(volume, memory=memory)}")
            found = segmenter.predict(volume, memory=memory, doubt=doubt)
        except DataError as error:
            notes.append(f"image {number} left out: {error}")
            continue
        files.append(_write(found, volume, folder / f"segmentation-{number}", wanted))
        previews.append(_preview(found, volume, folder / f"preview-{number}.jpg"))
        milliliters = float(abs(_determinant(volume))) / 1000
        sure = dict(zip(labels, doubt.expected_dice().tolist(), strict=True))
        expected.append({n: q.predict(sure[n]) for n, q in zip(labels, quality, strict=True)})
        reasons = [q.doubts(n, sure[n]) for n, q in zip(labels, quality, strict=True)]
        notes += [f"image {number}, review: {reason}" for reason in reasons if reason]
        sizes.append(
            {n: float((found.data == v).sum()) * milliliters for v, n in found.names.items()}
        )
    if not files:
        raise DataError(f"no image of the exam can be segmented: {'; '.join(notes) or 'none'}")
    record = [dict(s) for s in sizes]
    write_json(
        folder / "prediction.json",
        {
            "run": run.id,
            "volumes_ml": record,
            "expected_dice": expected,
            "files": [f.name for f in files],
            "notes": notes,
        },
    )
    return Prediction(
        "segment",
        tuple(files),
        tuple(previews),
        {},
        tuple(sizes),
        tuple(notes),
        expected_dice=tuple(expected),
    )


def _write(found: LabelMap, volume: Volume, stem: Path, wanted: str) -> Path:
    from vesalius import io

    is_dicom = volume.source.format == "dicom"
    name = wanted if wanted != "auto" else "dicom-seg" if is_dicom else "nifti"
    path = stem.with_name(stem.name + FORMATS[name])
    if name not in ("dicom-seg", "rtstruct"):
        return io.write(found, path, format=name)
    if not is_dicom:
        raise UsageError(
            f"format '{name}' refers to the DICOM files of the exam, and this one is "
            f"'{volume.source.format}'; unpack a zip, or choose nifti, nrrd or minc"
        )
    return io.write(found, path, format=name, source_files=volume.source.files)


def _preview(found: LabelMap, volume: Volume, path: Path) -> Path:
    from vesalius.reporting.thumbnails import slice_picture, telling_slice

    labels = found.data[0]
    picture = slice_picture(volume, telling_slice(labels), prediction=labels)
    content = base64.b64decode(picture.split(",", 1)[1])
    return write_atomically(path, lambda stream: stream.write(content))


def _determinant(volume: Volume) -> float:
    import numpy as np

    return float(np.linalg.det(volume.affine[:3, :3]))
