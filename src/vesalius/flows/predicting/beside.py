# SPDX-License-Identifier: Apache-2.0
"""What is made beside a label map of the same answer: reports, key images, outlines, FHIR.

One image at a time. What cannot be made of an image (a structure set of nothing) is said, and the
answer itself stands.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vesalius.errors import DataError, UsageError
from vesalius.files import write_json
from vesalius.flows.predicting.geometry_proof import prove
from vesalius.flows.predicting.label_maps import DICOM_OBJECTS, write_label_map
from vesalius.flows.predicting.wanted import FHIR, KEY_IMAGES, OUTLINES, REPORT
from vesalius.io.fhir import Statement, Study, diagnostic_report
from vesalius.io.maker import Maker

if TYPE_CHECKING:
    from vesalius.types import Json
    from vesalius.volume import LabelMap, Volume

_NEED_DICOM = (KEY_IMAGES, OUTLINES, REPORT, *DICOM_OBJECTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is said of one image.

    Attributes:
        number: of the image in the exam.
        volumes_ml: structure -> milliliters.
        expected_dice: structure -> Dice score to be expected.
        remarks: what a person should look at.
    """

    number: int
    volumes_ml: Mapping[str, float]
    expected_dice: Mapping[str, float]
    remarks: Sequence[str]


def make_beside(
    names: Sequence[str],
    found: LabelMap,
    volume: Volume,
    folder: Path,
    maker: Maker,
    facts: Facts,
) -> tuple[list[Path], list[str]]:
    """Write what is asked for beside a label map.

    Args:
        names: of `Wanted.beside`.
        found: the label map.
        volume: the image.
        folder: for the files.
        maker: what made the label map.
        facts: what is said of the image.

    Returns:
        The files, and what could not be made and why.
    """
    files: list[Path] = []
    notes: list[str] = []
    for name in names:
        try:
            if name in _NEED_DICOM and volume.source.format != "dicom":
                raise DataError("it refers to DICOM files, and the image is none")
            files.append(_made(name, found, volume, folder, maker, facts))
        except (DataError, UsageError) as error:
            reason = getattr(error, "reason", error)
            notes.append(f"image {facts.number}: no {name}: {reason}")
    return files, notes


def _made(
    name: str, found: LabelMap, volume: Volume, folder: Path, maker: Maker, facts: Facts
) -> Path:
    number, files = facts.number, [Path(file) for file in volume.source.files]
    if name == REPORT:
        return _report(folder / f"report-{number}.dcm", files, maker, facts)
    if name == FHIR:
        return _fhir(folder / f"report-{number}.fhir.json", volume, files, maker, facts)
    if name == KEY_IMAGES:
        from vesalius.io.dicom.key_images import write_key_image

        words = [f"{part} {size:.1f} ml" for part, size in facts.volumes_ml.items()]
        return write_key_image(
            folder / f"key-image-{number}.dcm",
            source_files=files, maker=maker, label_map=found, words=words, number=number,
        )  # fmt: skip
    if name == OUTLINES:
        from vesalius.io.dicom.presentation_state import write_presentation_state

        path = folder / f"outlines-{number}.dcm"
        return write_presentation_state(found, path, source_files=files, maker=maker)
    path = write_label_map(found, volume, folder / f"{name}-{number}", name, maker)
    prove(path, found, volume, name)
    return path


def _report(path: Path, files: Sequence[Path], maker: Maker, facts: Facts) -> Path:
    """Write the volumes as a structured report (TID 1500)."""
    from vesalius.io.dicom.derived import sign
    from vesalius.io.dicom.measurement_report import write_measurement_report

    values = {f"Volume of {n}": (size, "mL") for n, size in facts.volumes_ml.items()}
    values |= {f"Expected Dice of {n}": (dice, "1") for n, dice in facts.expected_dice.items()}
    write_measurement_report(
        path,
        source_files=files,
        finding="Segmentation",
        probabilities={},
        label_set=None,
        predicted=None,
        reason="; ".join(facts.remarks),
        algorithm_name="Vesalius",
        algorithm_version=maker.version,
        run_id=maker.run_id,
        values=values,
        series_description="Volumes by Vesalius",
    )
    return sign(path, maker)


def _fhir(path: Path, volume: Volume, files: Sequence[Path], maker: Maker, facts: Facts) -> Path:
    statements = [Statement(name=n, volume_ml=size) for n, size in facts.volumes_ml.items()]
    study = study_of(volume, files)
    words = "; ".join(facts.remarks)
    return write_json(
        path, diagnostic_report(statements, study=study, maker=maker, conclusion=words)
    )


def study_of(volume: Volume, files: Sequence[Path]) -> Study:
    """Return what a FHIR report refers to; of an image that is no DICOM, nothing but the moment."""
    now = datetime.datetime.now(tz=datetime.UTC)
    if volume.source.format != "dicom" or not files:
        return Study(when=now)
    from vesalius.io.dicom.header import read_header

    header = read_header(files[0])
    return Study(
        study_uid=header.study_uid or "",
        patient_id=header.patient_id or "",
        series=[header.series_uid or ""],
        body_part=header.body_part or "",
        when=now,
    )


def classified(found: Json, study: Study, maker: Maker) -> Json:
    """Return a classifier's answer, of `prediction.json`, as FHIR."""
    absent = str(found.get("abstained") or "")
    value = found.get("value")
    said = Statement(
        name=found["target"],
        answer="" if absent else str(found.get("predicted") or ""),
        number=None if absent or value is None else (float(value), "1"),
        parts=found["probabilities"],
        absent=absent,
    )
    return diagnostic_report([said], study=study, maker=maker)
