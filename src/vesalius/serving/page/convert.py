# SPDX-License-Identifier: Apache-2.0
"""Images of any format as NIfTI for the viewer, on their own grids; runs beside the server.

World frame: RAS+ millimeters. Voxels keep their places and values: what is drawn on a view lies on
the source's grid. Color images become NIfTI's RGB24, since a browser cannot guess from three
channels that they are colors.
"""

from __future__ import annotations

import gzip
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO

import numpy as np

from vesalius import io
from vesalius.errors import DataError, LimitExceeded
from vesalius.files import write_atomically, write_json
from vesalius.geometry import same_grid, slice_plane
from vesalius.io.limits import Limits
from vesalius.serving.attributes import LIMITS
from vesalius.types import Array, Json
from vesalius.volume import LabelMap, Volume

FACTS = "facts.json"
MOST_BYTES = 512 << 20  # of one image's voxels: a browser holds them several times
MOST_IMAGES = 32  # of one series
OWN = Limits(floor=4 * MOST_BYTES)  # for views, which were bounded when they were made
_FAST = 1  # of gzip's levels
_SAMPLE = 1 << 18  # voxels that the range of gray is estimated from


def convert_images(files: Sequence[str], folder: str) -> Json:
    """Write the images that files hold as `0.nii.gz`, `1.nii.gz`, … and what is known of each.

    Args:
        files: DICOM files of one series, or one file of another format.
        folder: for the results; `facts.json` is written last.

    Returns:
        `{"images": [{shape, spacing_mm, affine, modality, unit, …, files}]}`.

    Raises:
        ReadError: no image can be read. LimitExceeded: an image is too large for a browser.
    """
    out = Path(folder)
    source = files[0] if len(files) == 1 else list(files)
    images = []
    for number, volume in enumerate(io.read_all(source, limits=LIMITS)):
        if number == MOST_IMAGES:
            break
        images.append(_written(volume, out / f"{number}.nii.gz"))
    if not images:
        raise DataError("the series holds no image that can be shown")
    facts: Json = {"images": images}
    write_json(out / FACTS, facts)
    return facts


def convert_file(file: str, suffix: str, modality: str, folder: str) -> Json:
    """Write the images that a file of a research format holds; see `convert_images`.

    Args:
        file: which has no suffix that says its format.
        suffix: under which a reader knows it.
        modality: that its sender stated, or empty.
        folder: for the results.
    """
    with tempfile.TemporaryDirectory() as place:
        named = Path(place) / f"image.{suffix}"
        named.symlink_to(Path(file).resolve())
        facts = convert_images([str(named)], folder)
    for image in facts["images"]:
        image |= {"files": [Path(file).name], "modality": image["modality"] or modality}
    write_json(Path(folder) / FACTS, facts)
    return facts


def convert_labels(file: str, image: str, folder: str) -> Json:
    """Write a label map, brought onto its image's grid, a NIfTI file a layer.

    Args:
        file: a DICOM Segmentation or RTSTRUCT, or a label map of another format.
        image: the view of its image, of `convert_images`.
        folder: for the results.

    Returns:
        `{"names": {value: structure}, "layers": n, "volumes_ml": {structure: ml}, …}`; label maps
        with values beyond 255 are not `drawable`.
    """
    reference = io.read(image, limits=OWN)
    found = io.read_labels(file, reference=reference, limits=_around(reference))
    if not reference.calibrated:
        found = replace(found, affine=reference.affine)
    near = 0.25 * min(reference.spacing)
    if not same_grid(found.affine, found.shape, reference.affine, reference.shape,
                     tolerance_mm=near):  # fmt: skip
        raise DataError(
            f"the label map ({_by(found.shape)} voxels) does not lie on its image "
            f"({_by(reference.shape)} voxels)"
        )
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    names = structure_names(found)
    highest = int(found.data.max(initial=0))
    dtype = np.uint8 if highest < 256 else np.uint16 if highest < 65536 else np.uint32
    for layer, data in enumerate(found.data.astype(dtype, copy=False)):
        one = LabelMap(data[None], reference.affine, names=names)
        io.write(one, out / f"{layer}.nii.gz")
    facts: Json = {
        "names": {str(value): name for value, name in names.items()},
        "layers": len(found.data),
        "volumes_ml": volumes_ml(found, names),
        "drawable": highest < 256 and len(found.data) == 1,
    }
    write_json(out / FACTS, facts)
    return facts


def structure_names(found: LabelMap) -> dict[int, str]:
    """Return a name for each value that has one or occurs."""
    names = {int(value): str(name) for value, name in found.names.items() if int(value)}
    for value in np.unique(found.data):
        if value:
            names.setdefault(int(value), f"label {int(value)}")
    return dict(sorted(names.items()))


def volumes_ml(found: LabelMap, names: dict[int, str]) -> dict[str, float]:
    """Return structure -> milliliters; structures that are named and not there have 0."""
    voxel_ml = abs(float(np.linalg.det(found.affine[:3, :3]))) / 1000
    counts = np.bincount(found.data.reshape(-1).astype(np.int64), minlength=max(names, default=0))
    return {name: float(counts[value]) * voxel_ml if value < len(counts) else 0.0
            for value, name in names.items()}  # fmt: skip


def _written(volume: Volume, path: Path) -> Json:
    data = _viewable(volume.data)
    if data.nbytes > MOST_BYTES:
        raise LimitExceeded(
            f"an image of {_by(volume.shape)} voxels takes {data.nbytes >> 20} MiB, a browser is "
            f"given {MOST_BYTES >> 20} MiB at most; look at it in another viewer",
            wanted=data.nbytes,
            allowed=MOST_BYTES,
        )
    color = _is_color(volume)
    path.parent.mkdir(parents=True, exist_ok=True)
    if color:
        _write_color(data, volume, path)
    else:
        _write_gray(replace(volume, data=data, channels=()), path)
    low, high = _gray_range(data)
    return {
        "shape": list(volume.shape),
        "channels": 1 if color else len(data),
        "channel_names": [] if color else list(volume.channels),
        "color": color,
        "spacing_mm": [round(one, 6) for one in volume.spacing],
        "affine": volume.affine.tolist(),
        "plane": slice_plane(volume.affine),
        "calibrated": volume.calibrated,
        "modality": volume.modality,
        "unit": volume.unit,
        "range": [low, high],
        "files": [Path(one).name for one in volume.source.files],
        "bytes": path.stat().st_size,
    }


def _viewable(data: Array) -> Array:
    """Return voxels in a type that viewers know."""
    if data.dtype == np.float64:
        return data.astype(np.float32)
    return data.astype(np.uint8) if data.dtype == bool else data


def _is_color(volume: Volume) -> bool:
    return volume.data.dtype == np.uint8 and volume.channels[:3] == ("red", "green", "blue")


def _write_gray(volume: Volume, path: Path) -> None:
    """Write NIfTI, packed fast rather than small: somebody waits for it."""
    with tempfile.TemporaryDirectory(dir=path.parent) as place:
        plain = io.write(volume, Path(place) / "image.nii")

        def pack(stream: IO[bytes]) -> None:
            with (
                open(plain, "rb") as source,
                gzip.GzipFile("", "wb", compresslevel=_FAST, fileobj=stream, mtime=0) as packed,
            ):
                shutil.copyfileobj(source, packed, 1 << 20)

        write_atomically(path, pack)


def _write_color(data: Array, volume: Volume, path: Path) -> None:
    import nibabel

    pixel = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
    packed = np.ascontiguousarray(data[:3].transpose(1, 2, 3, 0)).view(pixel)[..., 0]
    raw = nibabel.Nifti1Image(packed, volume.affine).to_bytes()
    write_atomically(path, lambda stream: stream.write(gzip.compress(raw, _FAST, mtime=0)))


def _gray_range(data: Array) -> tuple[float, float]:
    """Return the values between which most voxels lie, the 1st and 99th percentile."""
    flat = data.reshape(-1)
    sample = flat[:: max(1, flat.size // _SAMPLE)].astype(np.float64)
    finite = sample[np.isfinite(sample)]
    if not finite.size:
        return 0.0, 1.0
    low, high = (float(one) for one in np.percentile(finite, (1, 99)))
    return (low, high) if high > low else (float(finite.min()), float(finite.max()) + 1)


def _around(reference: Volume) -> Limits:
    """Return limits for a label map of a known grid, however well it is packed."""
    return replace(LIMITS, floor=max(LIMITS.floor, 16 * int(np.prod(reference.shape)) + (96 << 20)))


def _by(shape: Sequence[int]) -> str:
    return " x ".join(f"{one:,}" for one in shape)
