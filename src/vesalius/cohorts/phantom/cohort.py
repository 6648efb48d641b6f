# SPDX-License-Identifier: Apache-2.0
"""Write the phantom cohort: DICOM tree, labels, and the truth about both."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from vesalius.cohorts.phantom import defects as spoil
from vesalius.cohorts.phantom.anatomy import STRUCTURES
from vesalius.cohorts.phantom.dicom_writer import (
    Instance,
    Series,
    identify,
    make_segmentation,
    make_series,
    opaque,
    uid,
    write_series,
)
from vesalius.cohorts.phantom.exam import NO_XRAY, Exam, Patient, examine
from vesalius.errors import UsageError
from vesalius.files import read_json, write_json, write_text
from vesalius.types import Json, PathLike

MODALITIES = ("CT", "MR", "DX")
_UNSEEN = 9000  # index of patients that no cohort holds
_STRAY_LABEL = "PHANTOM-9900"


@dataclass(frozen=True, slots=True)
class Defect:
    """One injected defect: `files` are relative to the DICOM folder."""

    finding: str
    patient_id: str
    series_uid: str
    files: tuple[str, ...]
    note: str


@dataclass(frozen=True, slots=True)
class PatientTruth:
    """What is known of one patient; `series` maps "CT", "T1", ... to (series UID, folder)."""

    patient_id: str
    diagnosis: str
    site: str
    sex: str
    age: int
    words: str
    lesions: tuple[Json, ...]
    series: dict[str, tuple[str, str]]


@dataclass(frozen=True, slots=True)
class PhantomTruth:
    """What was written and where.

    Attributes:
        out: the folder; `out/truth.json` holds the rest of this record.
        data: the DICOM tree to scan.
        labels: CSV with patient, diagnosis, age, sex, site, words.
        patients, defects: the truth.
    """

    out: Path
    data: Path
    labels: Path
    seed: int
    patients: tuple[PatientTruth, ...]
    defects: tuple[Defect, ...]


def write_phantom(
    out: PathLike,
    *,
    patients: int = 60,
    seed: int = 0,
    defects: bool = True,
    modalities: Sequence[str] = MODALITIES,
) -> PhantomTruth:
    """Write a simulated cohort: `out/dicom/`, `out/labels.csv`, `out/truth.json`.

    Same arguments, same bytes. About 0.8 MB and half a second of one core per patient. A finished
    phantom of the same arguments in `out` is kept as it is, another one is replaced.

    Args:
        patients: how many, 1 to 9000; with defects at least 16 or so.
        seed: of everything random.
        defects: inject the defects of `phantom.defects.KINDS` (those whose modality is written).
        modalities: any of "CT", "MR", "DX". CT comes with its segmentation (DICOM SEG).

    Raises:
        UsageError: an argument out of its range, or `out` holds something else.
    """
    out = Path(out)
    _validate(out, patients, modalities)
    data, record = out / "dicom", out / "truth.json"
    settings = {
        "format": 1,
        "simulated": True,
        "seed": seed,
        "count": patients,
        "with_defects": defects,
        "modalities": list(modalities),
    }
    if record.exists():
        earlier = read_json(record)
        if {name: earlier.get(name) for name in settings} == settings:
            return _load(out, earlier)
        record.unlink()  # comes back last, when all else is there
    if data.exists():
        shutil.rmtree(data)
    present = {"CT": ("CT", "SEG"), "MR": ("T1", "T2"), "DX": ("DX", "COPY")}
    wanted = {kind for modality in modalities for kind in present[modality]}
    planned: dict[int, list[spoil.Kind]] = {}
    if defects:
        kinds = [kind for kind in spoil.KINDS if kind.series in wanted]
        planned = spoil.plan(seed, patients, kinds)

    def work(index: int) -> tuple[PatientTruth, list[Defect]]:
        return _write_patient(
            data, seed, index, patients, tuple(modalities), planned.get(index, [])
        )

    with ThreadPoolExecutor(2) as pool:  # NumPy releases the interpreter lock
        results = list(pool.map(work, range(patients)))
    truths = tuple(truth for truth, _ in results)
    found = [defect for _, part in results for defect in part]
    unlabeled = ""
    if defects:
        unlabeled = truths[min(set(range(patients)) - set(planned))].patient_id
        found.append(Defect("label-without-image", _STRAY_LABEL, "", (), "a row without images"))
        found.append(Defect("image-without-label", unlabeled, "", (), "images without a row"))
    write_text(out / "labels.csv", _labels(truths, unlabeled, stray=defects))
    content = settings | {
        "structures": {str(label): name for label, (name, _) in STRUCTURES.items()},
        "patients": [asdict(patient) for patient in truths],
        "defects": [asdict(defect) for defect in found],
    }
    write_json(record, content)
    return _load(out, read_json(record))


def _load(out: Path, content: Json) -> PhantomTruth:
    patients = tuple(
        PatientTruth(
            **each
            | {
                "lesions": tuple(each["lesions"]),
                "series": {kind: tuple(place) for kind, place in each["series"].items()},
            }
        )
        for each in content["patients"]
    )
    defects = tuple(Defect(**each | {"files": tuple(each["files"])}) for each in content["defects"])
    return PhantomTruth(out, out / "dicom", out / "labels.csv", content["seed"], patients, defects)


def new_exam(out: PathLike, seed: int = 0) -> Path:
    """Write the CT series of one further patient, whom no cohort holds, into the folder `out`.

    The patient has a tumor or a cyst. Returns `out`, which then holds one DICOM series and
    nothing else; an earlier exam there is replaced.

    Raises:
        UsageError: `out` holds something else.
    """
    out = Path(out)
    earlier = list(out.iterdir()) if out.is_dir() else []
    if any(not path.name.startswith("IM0") for path in earlier):
        raise UsageError(f"{out} holds other files; write an exam into a new or empty folder.")
    for path in earlier:
        path.unlink()
    index = _UNSEEN
    exam = examine(seed, index, ("CT",))
    while not exam.patient.lesions:
        index += 1
        exam = examine(seed, index, ("CT",))
    (series,) = make_series(seed, exam)
    series.folder = out.name
    write_series(series, out.parent)
    return out


def _write_patient(
    data: Path,
    seed: int,
    index: int,
    patients: int,
    modalities: tuple[str, ...],
    kinds: list[spoil.Kind],
) -> tuple[PatientTruth, list[Defect]]:
    rng = np.random.default_rng([seed, index, 9])
    exam = examine(seed, index, modalities)
    patient = exam.patient
    series = {made.kind: made for made in make_series(seed, exam)}
    spoiled: list[tuple[spoil.Kind, Series]] = []
    mask_kind = next((kind.finding for kind in kinds if kind.series == "SEG"), "")
    if "CT" in series and all(kind.keeps_grid for kind in kinds):
        series["SEG"] = _segmentation(seed, exam, series["CT"], mask_kind)
    for kind in kinds:
        if kind.spoil is not None:
            kind.spoil(series[kind.series], rng)
            spoiled.append((kind, series[kind.series]))
        elif kind.series == "SEG":
            spoiled.append((kind, series["SEG"]))
        else:
            copied = _copy_xray(seed, patient, patients, kind.finding, rng)
            series[f"COPY {kind.finding}"] = copied
            spoiled.append((kind, copied))
    for each in series.values():
        write_series(each, data)
    truth = PatientTruth(
        patient.patient_id,
        patient.diagnosis,
        patient.site,
        patient.sex,
        patient.age,
        patient.words,
        tuple(
            {
                "kind": lesion.kind,
                "diameter_mm": round(lesion.diameter_mm, 2),
                "center_ras_mm": [round(value, 2) for value in lesion.center],
                "lobe": lesion.lobe,
            }
            for lesion in patient.lesions
        ),
        {kind: (each.uid, each.folder) for kind, each in series.items()},
    )
    return truth, [
        Defect(kind.finding, patient.patient_id, each.uid, tuple(each.files), kind.note)
        for kind, each in spoiled
    ]


def _segmentation(seed: int, exam: Exam, ct: Series, finding: str) -> Series:
    if exam.mask is None:
        raise ValueError("an exam with a CT has a mask")
    headers = sorted(
        (instance.header for instance in ct.instances),
        key=lambda header: float(header.SliceLocation),
    )
    mask = exam.mask.data[0]
    names = tuple(exam.mask.names.values())
    if finding == "empty-mask":
        return make_segmentation(seed, exam.patient, headers, mask * 0, structures=names[:1])
    if finding == "corrupt-file":
        mask = mask.copy()
        i, j, k = (n // 2 for n in mask.shape)
        mask[i - 3 : i + 3, j + 8 : j + 12, k - 2 : k + 2] = len(names) + 1
        names = (*names, "implant")
    made = make_segmentation(seed, exam.patient, headers, mask, structures=names)
    if finding == "corrupt-file":  # the frames stay, their description is lost
        del made.instances[0].header.SegmentSequence[-1]
    if finding == "mask-off-grid":
        _move_off_grid(made.instances[0].header)
    return made


def _move_off_grid(header: Dataset) -> None:
    """Shift every frame by 40 % of a pixel and stretch the pixels by a tenth."""
    measures = header.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    row, column = (float(value) for value in measures.PixelSpacing)
    measures.PixelSpacing = [round(1.1 * row, 6), round(1.1 * column, 6)]
    planes = [f.PlanePositionSequence[0] for f in header.PerFrameFunctionalGroupsSequence]
    for plane in {id(plane): plane for plane in planes}.values():  # segments may share them
        x, y, z = (float(value) for value in plane.ImagePositionPatient)
        plane.ImagePositionPatient = [round(x + 0.4 * column, 6), round(y + 0.4 * row, 6), z]


def _copy_xray(
    seed: int, patient: Patient, patients: int, finding: str, rng: np.random.Generator
) -> Series:
    """Return an X-ray of the next patient who has one, under this patient's identity."""
    other = next(
        n % patients
        for n in range(patient.index + 1, patient.index + patients)
        if n % patients % 8 != NO_XRAY
    )
    (source,) = make_series(seed, examine(seed, other, ("DX",)))
    (instance,) = source.instances
    header, pixels = instance.header, instance.pixels
    if pixels is None:
        raise ValueError("an X-ray has pixels")
    identify(header, seed, patient)
    key = (seed, patient.index, finding)
    header.SeriesInstanceUID, header.SOPInstanceUID = uid(*key, "series"), uid(*key, "instance")
    header.SeriesNumber = 30
    if finding == "near-duplicate-across-patients":
        noisy = pixels * 1.04 + rng.normal(0, 5, pixels.shape)
        pixels = np.rint(noisy).clip(0, 2**header.BitsStored - 1).astype(pixels.dtype)
    folder = f"{opaque(seed, patient.index)}/{opaque(*key)}"
    return Series("DX", patient.patient_id, [Instance(header, pixels, instance.syntax)], folder)


def _labels(truths: tuple[PatientTruth, ...], unlabeled: str, *, stray: bool) -> str:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("patient", "diagnosis", "age", "sex", "site", "words"))
    for truth in truths:
        if truth.patient_id != unlabeled:
            table.writerow(
                (truth.patient_id, truth.diagnosis, truth.age, truth.sex, truth.site, truth.words)
            )
    if stray:
        table.writerow((_STRAY_LABEL, "none", 50, "F", "A", "A report whose images are lost."))
    return text.getvalue()


def _validate(out: Path, patients: int, modalities: Sequence[str]) -> None:
    if not 1 <= patients <= _UNSEEN:
        raise UsageError(f"patients must be 1 to {_UNSEEN}, got {patients}.")
    if not modalities or set(modalities) - set(MODALITIES):
        raise UsageError(f"modalities must be some of {MODALITIES}, got {tuple(modalities)}.")
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file; out must be a folder.")
    if out.is_dir():
        strangers = {p.name for p in out.iterdir()} - {"dicom", "labels.csv", "truth.json"}
        if strangers:
            raise UsageError(
                f"{out} holds other files ({len(strangers)}); a phantom is written into a new or "
                "empty folder, or over an earlier phantom."
            )
