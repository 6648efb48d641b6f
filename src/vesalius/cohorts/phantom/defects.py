# SPDX-License-Identifier: Apache-2.0
"""Defects that are injected on purpose, each under the finding name that a check must report.

Each function spoils one series in place (headers and stored values, before encoding).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from vesalius.cohorts.phantom.dicom_writer import Instance, Series, uid
from vesalius.cohorts.phantom.exam import COMPLETE, assignment
from vesalius.cohorts.phantom.scanners import EXPLICIT
from vesalius.errors import UsageError
from vesalius.types import Array


@dataclass(frozen=True, slots=True)
class Kind:
    """One defect: which series it spoils and how.

    Attributes:
        finding: the name that a check reports.
        series: "CT", "T1", "T2", "DX" (spoils it), "SEG" (spoils the mask of a sound CT) or "COPY"
            (an extra X-ray taken from another patient).
        note: what was done, for people.
        spoil: called with the series and a random generator; absent for "SEG" and "COPY".
        keeps_grid: whether the mask of a spoiled CT still fits it.
        sites: hospitals whose scanners can show it (a coronal image has no air above and below).
    """

    finding: str
    series: str
    note: str
    spoil: Callable[[Series, np.random.Generator], None] | None = None
    keeps_grid: bool = True
    sites: str = "ABC"


def plan(seed: int, patients: int, kinds: Iterable[Kind]) -> dict[int, list[Kind]]:
    """Return the defects of each affected patient: as few patients as possible, drawn at random.

    Raises:
        UsageError: too few patients with all images to hold every defect.
    """
    rng = np.random.default_rng([seed, 1_000_003])
    order = [int(n) for n in rng.permutation(patients) if int(n) % 8 in COMPLETE]
    taken: dict[int, set[str]] = {}
    chosen: dict[int, list[Kind]] = {}
    for kind in kinds:
        slot = {"SEG": "CT", "COPY": "COPY"}.get(kind.series, kind.series)
        free = [
            n
            for n in order
            if slot not in taken.get(n, ()) and assignment(seed, n)[1] in kind.sites
        ]
        if not free:
            raise UsageError(
                f"patients={patients} are too few to hold all injected defects: "
                "ask for at least 16, or pass defects=False."
            )
        taken.setdefault(free[0], set()).add(slot)
        chosen.setdefault(free[0], []).append(kind)
    return chosen


def _sorted(series: Series) -> list[Instance]:
    """Return the instances along the axis of their positions."""
    return sorted(series.instances, key=lambda instance: float(instance.header.SliceLocation))


def _missing_slice(series: Series, rng: np.random.Generator) -> None:
    ordered = _sorted(series)
    lost = ordered[int(rng.integers(6, len(ordered) - 6))]
    series.instances = [instance for instance in series.instances if instance is not lost]


def _duplicate_slice(series: Series, rng: np.random.Generator) -> None:
    original = series.instances[int(rng.integers(4, len(series.instances) - 4))]
    header = deepcopy(original.header)
    header.SOPInstanceUID = uid(original.header.SOPInstanceUID, "again")
    header.InstanceNumber = len(series.instances) + 1
    series.instances.append(Instance(header, original.pixels, original.syntax))


def _uneven_spacing(series: Series, _: np.random.Generator) -> None:
    ordered = _sorted(series)
    positions = np.array([_floats(i.header.ImagePositionPatient) for i in ordered])
    step = (positions[-1] - positions[0]) / (len(ordered) - 1)
    half = len(ordered) // 2
    for n, instance in enumerate(ordered[half:], start=1):
        _move(instance, step * 0.45 * n)


def _truncated(series: Series, rng: np.random.Generator) -> None:
    for instance in series.instances:
        instance.syntax = EXPLICIT
    victim = series.instances[int(rng.integers(len(series.instances)))]
    victim.cut = 2 * int(_stored(victim).size * 0.4)


def _uneven_slope(series: Series, rng: np.random.Generator) -> None:
    ordered = _sorted(series)
    header = ordered[int(rng.integers(8, len(ordered) - 8))].header
    header.RescaleSlope = f"{2 * float(header.RescaleSlope):g}"


def _not_hounsfield(series: Series, _: np.random.Generator) -> None:
    """Store HU + 1024 and state no offset: air reads 24, water 1024."""
    for instance in series.instances:
        header, stored = instance.header, _stored(instance)
        hu = stored * float(header.RescaleSlope) + float(header.RescaleIntercept)
        instance.pixels = np.rint(hu + 1024).clip(0, 4095).astype(np.uint16)
        header.RescaleSlope, header.RescaleIntercept = "1", "0"
        header.PixelRepresentation, header.BitsStored, header.HighBit = 0, 12, 11


def _gantry_tilt(series: Series, _: np.random.Generator) -> None:
    """Tilt every slice by 14 degrees about the left-right axis, with the table moving straight."""
    angle = np.radians(14)
    for instance in series.instances:
        header = instance.header
        down = [0.0, float(np.cos(angle)), float(-np.sin(angle))]
        header.ImageOrientationPatient = [1.0, 0.0, 0.0, *(round(v, 6) for v in down)]
        header.GantryDetectorTilt = "14"


def _contradict(series: Series, _: np.random.Generator) -> None:
    """State mirrored rows in the upper half: left and right swapped there."""
    ordered = _sorted(series)
    for instance in ordered[len(ordered) // 2 :]:
        axes = _floats(instance.header.ImageOrientationPatient)
        instance.header.ImageOrientationPatient = [
            round(float(value), 6) + 0.0 for value in (*-axes[:3], *axes[3:])
        ]


def _two_patients(series: Series, _: np.random.Generator) -> None:
    ordered = _sorted(series)
    for instance in ordered[-7:]:
        instance.header.PatientID = f"{series.patient_id}-X"
        instance.header.PatientName = "Phantom^Intruder"


def _constant(series: Series, _: np.random.Generator) -> None:
    for instance in series.instances:
        instance.pixels = np.full_like(_stored(instance), 120)


def _noisy(series: Series, rng: np.random.Generator) -> None:
    values = np.stack([_stored(i) for i in series.instances]).astype(np.float64)
    level = float(values[values > np.percentile(values, 60)].mean())
    for instance, plane in zip(series.instances, values, strict=True):
        noise = rng.normal(0, 0.6 * level, (2, *plane.shape))
        _store(instance, np.hypot(plane + noise[0], noise[1]) / 2)


def _bias(series: Series, _: np.random.Generator) -> None:
    for instance in series.instances:
        stored = _stored(instance).astype(np.float64)
        ramp = np.linspace(1.6, -1.6, stored.shape[1])[None, :]
        _store(instance, stored * np.exp(ramp) / 2)


def _ghost(series: Series, _: np.random.Generator) -> None:
    """Add copies at half and quarter field of view along the phase axis (rows)."""
    for instance in series.instances:
        stored = _stored(instance).astype(np.float64)
        rows = len(stored)
        ghosts = 0.14 * np.roll(stored, rows // 2, axis=0)
        ghosts += 0.07 * (np.roll(stored, rows // 4, 0) + np.roll(stored, -(rows // 4), 0))
        _store(instance, stored + ghosts)


def _clip(series: Series, _: np.random.Generator) -> None:
    for instance in series.instances:
        stored = _stored(instance)
        low, high = np.percentile(stored, (30, 65))
        top = 2 ** int(instance.header.BitsStored) - 1
        _store(instance, (stored - low) / (high - low) * top)


def _invert(series: Series, _: np.random.Generator) -> None:
    swap = {"MONOCHROME1": "MONOCHROME2", "MONOCHROME2": "MONOCHROME1"}
    for instance in series.instances:
        header = instance.header
        header.PhotometricInterpretation = swap[header.PhotometricInterpretation]
        if "PresentationLUTShape" in header:
            header.PresentationLUTShape = "INVERSE"


def _burn_in(series: Series, _: np.random.Generator) -> None:
    from PIL import Image, ImageDraw

    for instance in series.instances:
        stored = _stored(instance).copy()
        canvas = Image.new("L", (stored.shape[1], stored.shape[0]), 0)
        draw = ImageDraw.Draw(canvas)
        draw.fontmode = "1"
        draw.rectangle((0, 0, 100, 27), fill=1)
        draw.text((4, 2), "PHANTOM^BURNED", fill=255)
        draw.text((4, 14), "01.02.1970 M", fill=255)
        dark, bright = int(stored.min()), int(stored.max())
        if instance.header.PhotometricInterpretation == "MONOCHROME1":
            dark, bright = bright, dark
        drawn = np.asarray(canvas)
        stored[drawn == 1], stored[drawn == 255] = dark, bright
        instance.pixels = stored


def _shrink(series: Series, _: np.random.Generator) -> None:
    for instance in series.instances:
        stored = _stored(instance)
        small = ndimage.zoom(stored.astype(np.float64), [12 / n for n in stored.shape], order=1)
        _store(instance, small)
        instance.header.Rows = instance.header.Columns = 12


KINDS: tuple[Kind, ...] = (
    Kind("missing-slices", "CT", "one inner slice removed", _missing_slice, False),
    Kind("uneven-spacing", "CT", "upper half 1.45 times as far apart", _uneven_spacing, False),
    Kind("uneven-slope", "CT", "rescale slope doubled in one slice", _uneven_slope),
    Kind(
        "not-hounsfield",
        "CT",
        "stored with an offset of 1024 that no header states",
        _not_hounsfield,
    ),
    Kind("gantry-tilt", "CT", "slices tilted by 14 degrees, table straight", _gantry_tilt, False),
    Kind("mask-off-grid", "SEG", "segmentation moved by half a voxel and rescaled"),
    Kind("empty-mask", "SEG", "segmentation without a single voxel"),
    Kind(
        "corrupt-file", "SEG", "frames of a sixth segment that the segmentation does not describe"
    ),
    Kind("duplicate-slices", "T1", "one slice stored twice", _duplicate_slice),
    Kind(
        "orientation-contradiction",
        "T1",
        "row direction reversed in the upper half",
        _contradict,
    ),
    Kind("strong-bias-field", "T1", "multiplied by exp(+-1.6) from side to side", _bias),
    Kind(
        "ghosting-suspected",
        "T1",
        "copies at 1/2 and 1/4 field of view along the rows",
        _ghost,
        sites="A",
    ),
    Kind("truncated-pixel-data", "T2", "one file cut by 40 % of its pixels", _truncated),
    Kind("two-patients", "T2", "seven slices under another patient ID", _two_patients),
    Kind("constant-image", "T2", "every voxel 120", _constant),
    Kind("extreme-noise", "T2", "Rician noise of 60 % of the bright tissue", _noisy),
    Kind("clipping", "DX", "stretched until 35 % saturate at either end", _clip),
    Kind("inverted-photometric", "DX", "the other photometric interpretation stated", _invert),
    Kind("burned-in-text-suspected", "DX", "name and date written into the pixels", _burn_in),
    Kind("tiny-image", "DX", "shrunk to 12 x 12", _shrink),
    Kind("exact-duplicate", "COPY", "another patient's X-ray, pixel by pixel"),
    Kind(
        "near-duplicate-across-patients",
        "COPY",
        "another patient's X-ray, 4 % brighter and noisier",
    ),
)


def _stored(instance: Instance) -> Array:
    if instance.pixels is None:
        raise ValueError("this instance has no stored values to spoil")
    return instance.pixels


def _store(instance: Instance, values: Array) -> None:
    """Round and clip values to what the instance can store."""
    bits = int(instance.header.BitsStored)
    low = -(2 ** (bits - 1)) if instance.header.PixelRepresentation else 0
    stored = np.rint(values).clip(low, low + 2**bits - 1)
    instance.pixels = stored.astype(_stored(instance).dtype)


def _move(instance: Instance, offset: Array) -> None:
    header = instance.header
    position = _floats(header.ImagePositionPatient) + offset
    header.ImagePositionPatient = [round(float(value), 6) for value in position]
    axes = _floats(header.ImageOrientationPatient)
    header.SliceLocation = round(float(np.cross(axes[:3], axes[3:]) @ position), 6)


def _floats(values: Iterable[object]) -> Array:
    return np.array([float(str(value)) for value in values])
