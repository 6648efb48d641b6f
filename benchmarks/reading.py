# SPDX-License-Identifier: Apache-2.0
"""Read every file of the data folder and compare it with an independent reader, file by file.

Peers: nibabel (NIfTI, MINC, MGH), SimpleITK (NRRD, MetaImage), Pillow (PNG, JPEG), NumPy (NPZ),
pydicom with gdcm's decoders (DICOM), dcm2niix (DICOM series).
Run as `VESALIUS_DATA=… python -m benchmarks.reading`.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import reading_dicom as dicom
from benchmarks.record import record
from vesalius import io
from vesalius.errors import ReadError, UsageError, VesaliusError
from vesalius.geometry import LPS_TO_RAS, reorient
from vesalius.io.formats import sniff
from vesalius.volume import Volume

TOLERANCE_MM = 1e-3


@dataclass(frozen=True, slots=True)
class Row:
    """One file's outcome."""

    file: str
    format: str
    peer: str
    verdict: str  # equal | lossy | refused | different
    note: str
    seconds: float

    def __str__(self) -> str:
        parts = (self.verdict, self.file, self.format, self.peer, self.note)
        return " | ".join(part for part in parts if part)


def main() -> None:
    """Compare, print the table, write `results/reading.json`."""
    root = Path(os.environ.get("VESALIUS_DATA", ""))
    if not os.environ.get("VESALIUS_DATA") or not root.is_dir():
        sys.exit("set VESALIUS_DATA to the folder of the real data")
    rows = [*files(root), *dicom_series(root)]
    for row in rows:
        if row.verdict in ("different", "refused") or "dicom" in row.format:
            print(row)
    verdicts = Counter(row.verdict for row in rows)
    print(dict(verdicts))
    by_format: dict[str, Counter[str]] = defaultdict(Counter)
    seconds: dict[str, float] = defaultdict(float)
    for row in rows:
        by_format[row.format or "not an image"][row.verdict] += 1
        seconds[row.format or "not an image"] += row.seconds
    different = verdicts["different"]
    untyped = sum("untyped" in row.note for row in rows)
    series = [row for row in rows if row.peer == "dcm2niix"]
    disagree = sum(row.verdict == "different" for row in series)
    record(
        "reading",
        {
            "title": "Reading",
            "what": "Every file of the data folder against an independent reader: voxels and "
            "world positions.",
            "data": "all public sets of the data folder",
            "unit": f"files; equal: voxels to float32, positions to {TOLERANCE_MM} mm; lossy: "
            "within 2 gray levels of gdcm's decode",
            "peer": "nibabel, SimpleITK, Pillow, NumPy, pydicom + gdcm, dcm2niix",
            "bars": [
                {"bar": "readable files that differ from their independent reader", "target": "0",
                 "measured": different, "met": different == 0},
                {"bar": f"DICOM series that disagree with dcm2niix (of {len(series)})",
                 "target": "0", "measured": disagree, "met": disagree == 0 and bool(series)},
                {"bar": "unreadable files without a typed finding", "target": "0",
                 "measured": untyped, "met": untyped == 0},
            ],
            "rows": [
                {"format": name, **{v: counts[v] for v in ("equal", "lossy", "refused",
                                                           "different")},
                 "ms_per_file": round(1000 * seconds[name] / sum(counts.values()), 1)}
                for name, counts in sorted(by_format.items())
            ],
            "files": [str(row) for row in rows],
        },
        data=root,
    )  # fmt: skip
    if different or untyped:
        sys.exit("some files differ or fail without a typed finding")


def files(root: Path) -> Iterator[Row]:
    """Yield one row for every file below `root`."""
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        name = str(path.relative_to(root))
        kind = ""
        start = time.perf_counter()
        try:
            kind = sniff(path)
            ours = list(io.read_all(path))
            seconds = time.perf_counter() - start
        except ReadError as error:
            yield Row(name, kind, "", "refused", f"{error.finding}: {error.reason}", 0.0)
            continue
        except UsageError as error:
            reason = str(error).replace(f"{path}: ", "")
            yield Row(name, kind, "", "refused", f"usage: {reason}", 0.0)
            continue
        except VesaliusError as error:
            yield Row(name, kind, "", "different", f"untyped: {error!r}", 0.0)
            continue
        peer, verdict, note = compare(path, kind, ours)
        yield Row(name, kind, peer, verdict, note, seconds)


def dicom_series(root: Path) -> Iterator[Row]:
    """Yield one row for every DICOM series in a folder or zip, against dcm2niix."""
    with tempfile.TemporaryDirectory() as folder:
        found = dicom.series(root)
        for path in root.rglob("*.zip"):
            target = Path(folder, path.name)
            target.mkdir()
            members = dicom.unzipped(path, target)
            if members:
                found[str(path.relative_to(root))] = members
        for name, members in sorted(found.items()):
            outcome = dicom.against_dcm2niix(members)
            if outcome is not None:
                yield Row(name, "dicom series", "dcm2niix", *outcome)


def compare(path: Path, kind: str, ours: list[Volume]) -> tuple[str, str, str]:
    """Return peer, verdict and a note with the largest differences."""
    if kind in ("nifti", "minc1", "minc2", "mgh", "analyze"):
        return "nibabel", *verdict_of(ours[0], by_nibabel(path))
    if kind in ("nrrd", "metaimage"):
        return "SimpleITK", *verdict_of(ours[0], by_itk(path))
    if kind in ("png", "jpeg", "tiff", "bmp"):
        return "Pillow", *by_pillow(path, ours[0])
    if kind == "npz":
        return "NumPy", *by_numpy(path, ours)
    if kind == "dicom-zip":
        return "pydicom+gdcm", *dicom.zip_against_pydicom(path, ours)
    return "pydicom+gdcm", *dicom.against_pydicom([path], ours)


def verdict_of(ours: Volume, theirs: Volume) -> tuple[str, str]:
    """Compare two volumes, whatever the order of their axes."""
    a, b = reorient(ours), reorient(theirs)
    if a.data.shape != b.data.shape:
        return "different", f"shape {a.data.shape} and {b.data.shape}"
    finite = np.isfinite(b.data)
    same_holes = bool((np.isfinite(a.data) == finite).all())
    scale = float(np.abs(b.data[finite]).max(initial=1))
    off = float(np.abs(a.data.astype(np.float64) - b.data)[finite].max(initial=0))
    ends = np.array([[0, 0, 0, 1], [*(np.array(a.shape) - 1), 1]])
    away = float(np.abs((a.affine - b.affine) @ ends.T).max())
    fits = same_holes and off <= 1e-6 * scale and away <= TOLERANCE_MM
    return ("equal" if fits else "different"), f"values {off:.2g}, positions {away:.1g} mm"


def by_nibabel(path: Path) -> Volume:
    import nibabel

    image: Any = nibabel.load(path)
    values = np.asarray(image.get_fdata())
    values = values.reshape(*values.shape[:3], *[1] * (3 - values.ndim), -1)
    return Volume(np.moveaxis(values, -1, 0), image.affine)


def by_itk(path: Path) -> Volume:
    import SimpleITK

    image = SimpleITK.ReadImage(str(path))
    values = SimpleITK.GetArrayFromImage(image)
    values = values if image.GetNumberOfComponentsPerPixel() > 1 else values[..., None]
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return Volume(values.transpose(3, 2, 1, 0), LPS_TO_RAS @ affine)


def by_pillow(path: Path, ours: Volume) -> tuple[str, str]:
    from PIL import Image, ImageOps

    with Image.open(path) as image:
        theirs = np.asarray(ImageOps.exif_transpose(image))
    theirs = theirs if theirs.ndim == 3 else theirs[..., None]
    mine = ours.data[..., 0].transpose(2, 1, 0)
    same = mine.shape == theirs.shape and bool((mine == theirs).all())
    return ("equal" if same else "different"), f"{mine.shape[1]}x{mine.shape[0]} {mine.dtype}"


def by_numpy(path: Path, ours: list[Volume]) -> tuple[str, str]:
    with np.load(path) as arrays:
        images = {name: arrays[name] for name in arrays.files if arrays[name].ndim > 2}
    wrong = 0
    for volume in ours:
        name, index = volume.source.member[:-1].split("[")
        expected = images[name][int(index)]
        if expected.ndim == 3 and expected.shape[-1] == 3:
            same = np.array_equal(volume.data[..., 0], expected.transpose(2, 1, 0))
        else:
            same = np.array_equal(np.squeeze(volume.data), expected.T)
        wrong += not same
    complete = len(ours) == sum(map(len, images.values()))
    return ("equal" if complete and not wrong else "different"), f"{len(ours)} images"


if __name__ == "__main__":
    main()
