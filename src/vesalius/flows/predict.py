# SPDX-License-Identifier: Apache-2.0
"""`vesalius predict`: a run applied to one new exam."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from vesalius.errors import DataError, RunError, UsageError, did_you_mean
from vesalius.files import write_atomically, write_json
from vesalius.types import Json, PathLike

if TYPE_CHECKING:
    from vesalius.io.limits import Limits
    from vesalius.tasks.run import Run
    from vesalius.volume import LabelMap, Volume

# format -> suffix of the written file
FORMATS = {
    "dicom-seg": ".dcm",
    "rtstruct": ".dcm",
    "nifti": ".nii.gz",
    "nrrd": ".seg.nrrd",
    "minc2": ".mnc",
}


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a run says of one exam.

    Attributes:
        task: `classify` or `segment`.
        files: what was written, label maps first.
        previews: pictures of the label maps over their images. Patient data.
        probabilities: class -> probability (classify).
        volumes_ml: for each label map, structure -> milliliters (segment).
        notes: images that were left out, and why.
    """

    task: str
    files: tuple[Path, ...]
    previews: tuple[Path, ...] = ()
    probabilities: Mapping[str, float] = field(default_factory=dict)
    volumes_ml: tuple[Mapping[str, float], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def predicted(self) -> str:
        """The most probable class, or ``."""
        return max(self.probabilities, key=lambda name: self.probabilities[name], default="")

    def to_json(self) -> Json:
        """Return all of it, for machines."""
        found: Json = (
            {"predicted": self.predicted, "probabilities": dict(self.probabilities)}
            if self.task == "classify"
            else {"volumes_ml": [dict(volumes) for volumes in self.volumes_ml]}
        )
        return {
            "task": self.task,
            **found,
            "files": [str(path) for path in self.files],
            "previews": [str(path) for path in self.previews],
            "notes": list(self.notes),
        }

    def lines(self) -> list[str]:
        """Return all of it, for people."""
        ranked = sorted(self.probabilities.items(), key=lambda item: -item[1])
        out = [f"{name}: {value:.3f}" for name, value in ranked]
        for path, volumes in zip(self.files, self.volumes_ml, strict=False):
            sizes = ", ".join(f"{name} {value:.1f} ml" for name, value in volumes.items())
            out.append(f"{path}: {sizes}")
        if self.task == "classify":
            out += [f"written: {path}" for path in self.files]
        return [*out, *(f"preview: {path}" for path in self.previews), *self.notes]


def predict(
    run: PathLike | Run,
    exam: PathLike,
    *,
    out: PathLike,
    format: str = "auto",  # noqa: A002 - the option's name
    limits: Limits | None = None,
) -> Prediction:
    """Apply a run to a new exam and write the answer below the folder `out`.

    `classify` takes all images of the exam as one case. `segment` answers for each of its images
    of the modalities that the run was trained on, voxel for voxel on the image's own grid.

    Args:
        run: a run or its folder.
        exam: a file of any readable format, a DICOM folder, or a zip of DICOM files.
        out: folder for the results; the files in it bear no names of patients.
        format: of label maps: `auto` (DICOM SEG for DICOM files, else NIfTI), or one of
            `FORMATS`.
        limits: what reading may take in memory.

    Raises:
        UsageError: unknown format, or a DICOM format for an exam that is not DICOM files.
        RunError: the run is not finished. DataError: no image of the exam can serve.
    """
    from vesalius import io
    from vesalius.tasks.run import Run
    from vesalius.volume import LabelMap

    known = ["auto", *FORMATS]
    format = "minc2" if format == "minc" else format  # noqa: A001 - the option's name
    if format not in known:
        raise UsageError(
            f"format must be one of {', '.join(known)}, got '{format}'."
            f"{did_you_mean(format, known)}"
        )
    loaded = run if isinstance(run, Run) else Run.load(run)
    if not loaded.finished:
        raise RunError(f"the run '{loaded.path}' is not finished; finish its training first")
    images = (v for v in io.read_all(exam, limits=limits) if not isinstance(v, LabelMap))
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    if loaded.task == "segment":
        return _segment(loaded, images, folder, format)
    return _classify(loaded, images, folder)


def _classify(run: Run, images: Iterator[Volume], folder: Path) -> Prediction:
    from vesalius.tasks.classify.predict import Classifier

    classifier = Classifier.load(run)
    views, notes = [], []
    for number, volume in enumerate(images, 1):
        try:
            views.append(classifier.views(volume))
        except DataError as error:
            notes.append(f"image {number} left out: {error}")
    if not views:
        raise DataError(f"no image of the exam can be classified: {'; '.join(notes) or 'none'}")
    table = classifier.probabilities([views])[0]
    probabilities = dict(zip(classifier.classes, map(float, table), strict=True))
    path = folder / "prediction.json"
    answer = Prediction("classify", (path,), (), probabilities, (), tuple(notes))
    write_json(
        path, {"run": run.id, "images": len(views), **answer.to_json(), "files": [path.name]}
    )
    return answer


def _segment(run: Run, images: Iterator[Volume], folder: Path, wanted: str) -> Prediction:
    from vesalius.tasks.segment.predict import Segmenter

    segmenter = Segmenter.load(run)
    seen = set(run.plan["fingerprint"]["modalities"])
    files, previews, sizes, notes = [], [], [], []
    for number, volume in enumerate(images, 1):
        if volume.modality and "" not in seen and volume.modality not in seen:
            notes.append(
                f"image {number} left out: modality {volume.modality}, the run knows "
                f"{', '.join(sorted(seen))}"
            )
            continue
        try:
            found = segmenter.predict(volume)
        except DataError as error:
            notes.append(f"image {number} left out: {error}")
            continue
        files.append(_write(found, volume, folder / f"segmentation-{number}", wanted))
        previews.append(_preview(found, volume, folder / f"preview-{number}.jpg"))
        milliliters = float(abs(_determinant(volume))) / 1000
        sizes.append(
            {n: float((found.data == v).sum()) * milliliters for v, n in found.names.items()}
        )
    if not files:
        raise DataError(f"no image of the exam can be segmented: {'; '.join(notes) or 'none'}")
    record = [dict(s) for s in sizes]
    write_json(
        folder / "prediction.json",
        {"run": run.id, "volumes_ml": record, "files": [f.name for f in files], "notes": notes},
    )
    return Prediction("segment", tuple(files), tuple(previews), {}, tuple(sizes), tuple(notes))


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
