# SPDX-License-Identifier: Apache-2.0
"""Label maps of one exam, each on its image's own grid, with volumes and previews."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from vesalius.errors import DataError, UsageError, did_you_mean
from vesalius.files import write_atomically, write_json
from vesalius.flows.predicting.beside import Facts, make_beside
from vesalius.flows.predicting.geometry_proof import prove
from vesalius.flows.predicting.in_order import in_order
from vesalius.flows.predicting.label_maps import DICOM_OBJECTS, write_label_map
from vesalius.flows.predicting.loaded import model_of
from vesalius.flows.predicting.maker import maker_of
from vesalius.flows.predicting.prediction import Prediction
from vesalius.flows.predicting.wanted import Wanted

if TYPE_CHECKING:
    from vesalius.io.maker import Maker
    from vesalius.tasks.run import Run
    from vesalius.tasks.segment.quality import Quality
    from vesalius.types import Json
    from vesalius.volume import LabelMap, Volume

_MOST_WORKERS = 8


@dataclass(frozen=True, slots=True)
class _Item:
    """One image: its place in the exam, the name that its answer is to bear, or none."""

    number: int
    name: str
    volume: Volume


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    """What was written of one image, and what is said of it."""

    file: Path
    beside: Sequence[Path]
    preview: Path
    proof: Json
    volumes_ml: Mapping[str, float]
    expected_dice: Mapping[str, float]
    remarks: Sequence[str]


def segment_exam(
    run: Run,
    images: Iterable[tuple[str, Volume]],
    folder: Path,
    wanted: Wanted,
    *,
    notes: list[str],
    keep_names: bool = False,
    memory: int | None = None,
    mirror: bool = False,
    channels: Sequence[str] = (),
    everywhere: bool = False,
    say: Callable[[str], None] | None = None,
) -> Prediction:
    """Answer for each image of an exam; see `flows.predict.predict`.

    Args:
        run: a segmenter's.
        images: of `exam_images`.
        folder: for the results.
        wanted: format of label maps, and what is made beside them.
        notes: what is left out of `images`, while they are taken.
        keep_names: name results as `images` does.
        memory: bytes that sums may take, of all images that are worked on at a time.
        mirror: answer by the mean over mirror images too.
        channels: of the plan's, which the images' are, in order; empty where that is plain.
        everywhere: leave no window out where the run's coarse network expects nothing.
        say: is told what each image takes.
    """
    from vesalius.tasks.segment.channels import missing_names
    from vesalius.tasks.segment.doubt import Doubt
    from vesalius.tasks.segment.predict import Segmenter
    from vesalius.tasks.segment.scoring import load_quality
    from vesalius.tasks.segment.slide import quarter_of

    segmenter, quality, maker = model_of(run, Segmenter.load), load_quality(run), maker_of(run)
    if everywhere:
        segmenter = segmenter.everywhere()
    workers = _workers(run)
    room = (memory or quarter_of(segmenter.fabric.device)) // workers
    seen = set(run.plan["fingerprint"]["modalities"])
    _refuse_unknown(channels, run.decisions)
    if "dicom-labelmap" in (wanted.first, *wanted.beside) and run.decisions.get("regions", False):
        raise UsageError(
            "a DICOM label map holds one structure a voxel, and the run's structures overlap; "
            "choose dicom-seg"
        )

    def planned() -> Iterator[_Item]:
        for number, (name, volume) in enumerate(images, 1):
            if volume.modality and "" not in seen and volume.modality not in seen:
                notes.append(
                    f"image {number} left out: modality {volume.modality}, the run knows "
                    f"{', '.join(sorted(seen))}"
                )
                continue
            if channels:
                volume = replace(volume, channels=tuple(channels))
            if say is not None:
                say(f"image {number}: {segmenter.layout(volume, memory=room, mirror=mirror)}")
            yield _Item(number, name if keep_names else "", volume)

    def answered(item: _Item) -> _Answer | str:
        doubt = Doubt.of(run.decisions)
        try:
            found = segmenter.predict(item.volume, memory=room, doubt=doubt, mirror=mirror)
        except DataError as error:
            return f"image {item.number} left out: {error}"
        sure = dict(zip(run.decisions["labels"], doubt.expected_dice().tolist(), strict=True))
        missing = missing_names(item.volume, run.decisions)
        return _written(found, item, folder, wanted, maker, sure, quality, missing)

    answers: list[_Answer] = []
    remarks: list[str] = []
    for answer in in_order(answered, planned(), workers=workers):
        if isinstance(answer, str):
            remarks.append(answer)
        else:
            answers.append(answer)
            remarks += answer.remarks
    notes = [*notes, *remarks]
    if not answers:
        raise DataError(f"no image of the exam can be segmented: {'; '.join(notes) or 'none'}")
    files = [one.file for one in answers] + [file for one in answers for file in one.beside]
    write_json(
        folder / "prediction.json",
        {
            "run": run.id,
            "volumes_ml": [one.volumes_ml for one in answers],
            "expected_dice": [one.expected_dice for one in answers],
            "geometry": [one.proof for one in answers],
            "files": [str(file.relative_to(folder)) for file in files],
            "notes": notes,
        },
    )
    return Prediction(
        "segment",
        tuple(files),
        tuple(one.preview for one in answers),
        {},
        tuple(one.volumes_ml for one in answers),
        tuple(notes),
        expected_dice=tuple(one.expected_dice for one in answers),
        geometry=tuple(one.proof for one in answers),
    )


def _workers(run: Run) -> int:
    """Return how many images to work on at a time: several where each is small work.

    One more than there are processors, since writing waits for the disk.
    """
    import torch

    if run.decisions["network"]["spatial_dims"] != 2:
        return 1
    return min(_MOST_WORKERS, 1 + torch.get_num_threads())


def _written(
    found: LabelMap,
    item: _Item,
    folder: Path,
    wanted: Wanted,
    maker: Maker,
    sure: Mapping[str, float],
    quality: Sequence[Quality],
    missing: Sequence[str],
) -> _Answer:
    """Write a label map and its picture, and return what is said of them.

    Args:
        found: the label map.
        item: the image.
        folder: for the results.
        wanted: format, and what is made beside.
        maker: the run.
        sure: what the network expects of itself, for each structure.
        quality: each structure's line.
        missing: channels that the image lacks.
    """
    volume = item.volume
    remarks = [f"image {item.number}: the channel '{name}' is missing" for name in missing]
    form = _form(volume, wanted.first)
    if not found.data.any() and form in DICOM_OBJECTS:
        remarks.append(
            f"image {item.number}: nothing was found, which no {form} can say; see NIfTI"
        )
        form = "nifti"
    stem = folder / (item.name or f"segmentation-{item.number}")
    file = write_label_map(found, volume, stem, form, maker)
    lines = dict(zip(sure, quality, strict=True))
    reasons = [lines[n].doubts(n, value) for n, value in sure.items()]
    remarks += [f"image {item.number}, review: {reason}" for reason in reasons if reason]
    milliliters = float(abs(_determinant(volume))) / 1000
    facts = Facts(
        number=item.number,
        volumes_ml={
            n: float((found.data == v).sum()) * milliliters for v, n in found.names.items()
        },
        expected_dice={n: lines[n].predict(value) for n, value in sure.items()},
        remarks=list(remarks),
    )
    beside, left_out = make_beside(wanted.beside, found, volume, folder, maker, facts)
    return _Answer(
        file=file,
        beside=beside,
        proof=prove(file, found, volume, form),
        preview=_preview(found, volume, folder / f"{item.name or f'preview-{item.number}'}.jpg"),
        volumes_ml=facts.volumes_ml,
        expected_dice=facts.expected_dice,
        remarks=[*remarks, *left_out],
    )


def _refuse_unknown(channels: Sequence[str], decisions: Json) -> None:
    """Raise where a channel is named that the plan has not."""
    from vesalius.tasks.segment.channels import channel_names

    known = channel_names(decisions)
    for name in channels:
        if name not in known:
            raise UsageError(
                f"the run has no channel '{name}'; it has: {', '.join(known)}."
                f"{did_you_mean(name, known)}"
            )


def _form(volume: Volume, wanted: str) -> str:
    """Return the format to write; refuse DICOM objects that would refer to no DICOM files."""
    is_dicom = volume.source.format == "dicom"
    if wanted == "auto":
        return "dicom-seg" if is_dicom else "nifti"
    if wanted in DICOM_OBJECTS and not is_dicom:
        raise UsageError(
            f"format '{wanted}' refers to the DICOM files of the exam, and this one is "
            f"'{volume.source.format}'; unpack a zip, or choose nifti, nrrd or minc"
        )
    return wanted


def _preview(found: LabelMap, volume: Volume, path: Path) -> Path:
    from vesalius.reporting.thumbnails import slice_picture, telling_slice

    labels = found.data.max(axis=0)  # of structures that overlap, the last
    picture = slice_picture(volume, telling_slice(labels), prediction=labels)
    content = base64.b64decode(picture.split(",", 1)[1])
    return write_atomically(path, lambda stream: stream.write(content))


def _determinant(volume: Volume) -> float:
    import numpy as np

    return float(np.linalg.det(volume.affine[:3, :3]))
