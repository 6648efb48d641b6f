# SPDX-License-Identifier: Apache-2.0
"""One simulated patient examined: who, what is found, and every image as its scanner stores it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from vesalius.cohorts.phantom import physics
from vesalius.cohorts.phantom.anatomy import (
    LABEL_OF_TISSUE,
    STRUCTURES,
    Anatomy,
    Lesion,
    draw_anatomy,
)
from vesalius.cohorts.phantom.physics import Tissue
from vesalius.cohorts.phantom.scanners import SCANNERS, T1W, T2W, Protocol, Scanner
from vesalius.geometry import flat_affine
from vesalius.types import Affine, Array
from vesalius.volume import LabelMap, Volume

DIAGNOSES = ("none", "cyst", "tumor")
# patients by index modulo 8: one in eight has no MR, another one no X-ray, as in any archive
NO_MR, NO_XRAY = 5, 2
COMPLETE = frozenset(range(8)) - {NO_MR, NO_XRAY}
_FINE = 2  # painted voxels per image voxel along each axis: partial volume (see `_mean_blocks`)
_DETECTOR_DEPTH_MM = 4.5
_BLOCK = 15


@dataclass(frozen=True, slots=True)
class Patient:
    """One simulated person; `index` is the place in the cohort."""

    index: int
    patient_id: str
    name: str
    sex: str  # "F" | "M"
    age: int
    site: str  # "A" | "B" | "C"
    diagnosis: str
    lesions: tuple[Lesion, ...]
    words: str


@dataclass(frozen=True, slots=True)
class Image:
    """One acquired series.

    Attributes:
        kind: "CT", "T1", "T2" or "DX".
        stored: the integers in the file, `(i, j, k)`.
        affine: voxel index to RAS+ millimeters (for "DX" the flat grid of a 2D image).
    """

    kind: str
    scanner: Scanner
    stored: Array
    affine: Affine
    protocol: Protocol | None = None

    def values(self) -> Array:
        """Return what the stored integers mean, float32: HU for CT, X-ray larger is denser."""
        values = self.stored.astype(np.float32)
        if self.scanner.inverted:
            return np.float32(2**self.scanner.bits - 1) - values
        if self.scanner.slope:
            values = values * np.float32(self.scanner.slope) + np.float32(self.scanner.intercept)
        return values

    def volume(self) -> Volume:
        """Return the image that a correct reader makes of the files."""
        return Volume(
            self.values()[None],
            self.affine,
            modality=self.scanner.modality,
            unit="HU" if self.kind == "CT" else "",
            calibrated=True,
        )


@dataclass(frozen=True, slots=True)
class Exam:
    """All images of one patient; `mask` lies on the grid of the CT."""

    patient: Patient
    images: dict[str, Image]
    mask: LabelMap | None


def examine(seed: int, index: int = 0, modalities: tuple[str, ...] = ("CT", "MR", "DX")) -> Exam:
    """Simulate patient `index` of the cohort `seed`; one image does not depend on the others.

    One patient in eight has no MR and another one no X-ray (`NO_MR`, `NO_XRAY`).
    """
    rng = np.random.default_rng([seed, index, 0])
    diagnosis, site = assignment(seed, index)
    patient, anatomy, center = _draw(rng, index, diagnosis, site)
    images: dict[str, Image] = {}
    mask: LabelMap | None = None
    hu = rng.normal(physics.table("hu"), physics.table("hu_sd")).clip(-1000, None)
    relaxation = rng.normal(1, 0.04, (3, len(Tissue)))
    if "CT" in modalities:
        images["CT"], mask = _scan_ct(
            anatomy,
            SCANNERS[patient.site, "CT"],
            center,
            hu,
            np.random.default_rng([seed, index, 1]),
        )
    if "MR" in modalities and index % 8 != NO_MR:
        scanner = SCANNERS[patient.site, "MR"]
        affine = scanner.affine(center)
        fine = _subdivide(affine)
        tissues = anatomy.tissues(fine, _fine_shape(scanner))
        for n, protocol in enumerate((T1W, T2W)):
            noise = np.random.default_rng([seed, index, 2 + n])
            images[protocol.name] = _scan_mr(tissues, affine, scanner, protocol, relaxation, noise)
    if "DX" in modalities and index % 8 != NO_XRAY:
        images["DX"] = _expose(
            anatomy,
            SCANNERS[patient.site, "DX"],
            center,
            hu,
            np.random.default_rng([seed, index, 4]),
        )
    return Exam(patient, images, mask)


def assignment(seed: int, index: int) -> tuple[str, str]:
    """Return the diagnosis and the hospital of a patient; each block of 15 has the same mixture."""
    block, place = divmod(index, _BLOCK)
    rng = np.random.default_rng([seed, block, 5])
    diagnosis = DIAGNOSES[int(rng.permutation([0] * 6 + [1] * 4 + [2] * 5)[place])]
    return diagnosis, "ABC"[int(rng.permutation(_BLOCK)[place]) % 3]


def simulate_patient(seed: int, index: int = 0) -> dict[str, Volume]:
    """Return the images of one simulated patient, and the truth, in memory.

    Keys: "CT" (HU), "T1", "T2" (arbitrary units), "DX" (2D, larger is more attenuating), where the
    patient has them, and "mask" (a LabelMap on the CT's grid: 1 liver, 2 spleen, 3 kidneys,
    4 spine, 5 lesion). They equal, voxel by voxel, what `write_phantom(seed=seed)` writes for its
    patient number `index`.
    """
    exam = examine(seed, index)
    volumes = {kind: image.volume() for kind, image in exam.images.items()}
    if exam.mask is not None:
        volumes["mask"] = exam.mask
    return volumes


def _draw(
    rng: np.random.Generator, index: int, diagnosis: str, site: str
) -> tuple[Patient, Anatomy, tuple[float, float, float]]:
    female = bool(rng.random() < 0.5)
    age = int(np.clip(rng.normal({"none": 52, "cyst": 57, "tumor": 62}[diagnosis], 12), 20, 90))
    lesions: list[tuple[str, float]] = []
    if diagnosis == "cyst":
        lesions = [("cyst", float(rng.uniform(10, 28)))]
        if rng.random() < 0.25:
            lesions.append(("cyst", float(rng.uniform(8, 14))))
    elif diagnosis == "tumor":
        lesions = [("tumor", float(rng.uniform(14, 30)))]
        lesions += [("tumor", float(rng.uniform(8, 20))) for _ in range(int(rng.integers(0, 3)))]
    anatomy = draw_anatomy(rng, female=female, lesions=tuple(lesions))
    patient = Patient(
        index=index,
        patient_id=f"PHANTOM-{index:04d}",
        name=f"Phantom^{index:04d}",
        sex="F" if female else "M",
        age=age,
        site=site,
        diagnosis=diagnosis,
        lesions=anatomy.lesions,
        words=_words(anatomy.lesions),
    )
    x, y, z = rng.normal(0, (4, 4, 6))
    return patient, anatomy, (float(x), float(y - 6), float(z + 4))


def _words(lesions: tuple[Lesion, ...]) -> str:
    """Return the one-sentence report."""
    if not lesions:
        return "No focal lesion in the liver; spleen, kidneys and spine are unremarkable."
    first = max(lesions, key=lambda lesion: lesion.diameter_mm)
    size = f"{first.diameter_mm:.0f} mm"
    article = "An" if size.startswith(("8", "11", "18")) else "A"
    if first.kind == "cyst":
        text = (
            f"{article} {size} water-dense cyst with a smooth margin in the {first.lobe} liver lobe"
        )
    else:
        text = f"{article} {size} hypodense irregular tumor in the {first.lobe} liver lobe"
    rest = len(lesions) - 1
    more = {0: "", 1: ", and one smaller lesion of the same kind"}
    return text + more.get(rest, f", and {rest} smaller lesions of the same kind") + "."


def _scan_ct(
    anatomy: Anatomy,
    scanner: Scanner,
    center: tuple[float, float, float],
    hu: Array,
    rng: np.random.Generator,
) -> tuple[Image, LabelMap]:
    affine = scanner.affine(center)
    tissues = anatomy.tissues(_subdivide(affine), _fine_shape(scanner), couch=True)
    values = _mean_blocks(hu.astype(np.float32)[tissues])
    values += physics.correlated_noise(values.shape, scanner.noise, rng)
    stored = _quantize(values, scanner)
    labels = LABEL_OF_TISSUE[tissues]
    # The largest share of a voxel wins, ties go to the later structure: lesions are small.
    shares = [_mean_blocks((labels == label).view(np.uint8)) for label in reversed(STRUCTURES)]
    background = np.full(values.shape, 0.49, np.float32)
    mask = (len(STRUCTURES) - np.stack([*shares, background]).argmax(axis=0)).astype(np.uint8)
    names = {label: name for label, (name, _) in STRUCTURES.items()}
    return Image("CT", scanner, stored, affine), LabelMap(
        mask[None], affine, modality="CT", names=names
    )


def _scan_mr(
    tissues: Array,
    affine: Affine,
    scanner: Scanner,
    protocol: Protocol,
    relaxation: Array,
    rng: np.random.Generator,
) -> Image:
    signal = physics.spin_echo(
        physics.table("t1", tesla=scanner.tesla) * relaxation[0],
        physics.table("t2", tesla=scanner.tesla) * relaxation[1],
        physics.table("density") * relaxation[2],
        protocol.tr,
        protocol.te,
    )
    image = _mean_blocks(signal.astype(np.float32)[tissues])
    image *= physics.bias_field(image.shape, scanner.bias, rng)
    image = physics.rician(image, scanner.noise, rng) * np.float32(scanner.gain)
    return Image(protocol.name, scanner, _quantize(image, scanner), affine, protocol)


def _expose(
    anatomy: Anatomy,
    scanner: Scanner,
    center: tuple[float, float, float],
    hu: Array,
    rng: np.random.Generator,
) -> Image:
    columns, rows, _ = scanner.shape
    layers = 60
    affine = np.eye(4)
    affine[:3, :3] = [
        [-scanner.spacing[0], 0, 0],
        [0, 0, -_DETECTOR_DEPTH_MM],
        [0, -scanner.spacing[1], 0],
    ]
    half = (np.array((columns, rows, layers)) - 1) / 2
    affine[:3, 3] = np.add(center, (0, 0, 15)) - affine[:3, :3] @ half
    tissues = anatomy.tissues(affine, (columns, rows, layers))
    mu = physics.attenuation(hu).astype(np.float32)[tissues].sum(axis=2) * np.float32(
        _DETECTOR_DEPTH_MM
    )
    mu = ndimage.gaussian_filter(mu, 0.6)
    image = physics.radiograph(mu, scanner.noise, 0.08, rng) * np.float32(scanner.gain)
    image += np.float32(0.1 * scanner.gain)
    stored = _quantize(image[..., None], scanner)
    if scanner.inverted:
        stored = (2**scanner.bits - 1) - stored
    return Image("DX", scanner, stored, flat_affine(scanner.spacing))


def _fine_shape(scanner: Scanner) -> tuple[int, int, int]:
    i, j, k = (n * _FINE for n in scanner.shape)
    return i, j, k


def _subdivide(affine: Affine) -> Affine:
    """Return the grid with each voxel cut into `_FINE` parts along each axis."""
    fine = affine.copy()
    fine[:3, :3] /= _FINE
    fine[:3, 3] -= fine[:3, :3] @ np.full(3, (_FINE - 1) / 2)
    return fine


def _mean_blocks(fine: Array) -> Array:
    """Return the mean of each block of 2 x 2 x 2 painted voxels, float32."""
    total = fine[::2] + fine[1::2]
    total = total[:, ::2] + total[:, 1::2]
    total = total[:, :, ::2] + total[:, :, 1::2]
    mean: Array = total.astype(np.float32) / np.float32(8)
    return mean


def _quantize(values: Array, scanner: Scanner) -> Array:
    slope, intercept = (scanner.slope, scanner.intercept) if scanner.slope else (1.0, 0.0)
    stored = np.rint((values - intercept) / slope)
    low = -(2 ** (scanner.bits - 1)) if scanner.signed else 0
    return stored.clip(low, low + 2**scanner.bits - 1).astype(
        np.int16 if scanner.signed else np.uint16
    )
