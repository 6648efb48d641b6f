# SPDX-License-Identifier: Apache-2.0
"""Read and write images of every supported format: files in, `Volume` out, and back.

World frame: RAS+ millimeters; axes `(channel, i, j, k)`. `formats.FORMATS` is the table of what is
supported. Importing this module is cheap: each format's code is loaded when it is first needed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vesalius.io.limits import Limits
    from vesalius.types import PathLike
    from vesalius.volume import LabelMap, Volume

__all__ = ["read", "read_all", "read_labels", "write"]


def read(
    path: PathLike | Sequence[PathLike],
    *,
    member: str = "",
    reference: Volume | None = None,
    allow_gaps: bool = False,
    resample_irregular: bool = False,
    limits: Limits | None = None,
) -> Volume:
    """Read one image.

    Args:
        path: a file of any readable format, a DICOM folder that holds one series, a zip of DICOM
            files, or a list of the files of one DICOM series.
        member: one image of a container (NPZ: `train_images[12]`).
        reference: the image on whose grid an RTSTRUCT is drawn and a DICOM SEG is placed.
        allow_gaps: fill missing slices of a DICOM series between their neighbors.
        resample_irregular: bring a tilted or unevenly spaced DICOM series onto an even grid, which
            is refused otherwise.
        limits: memory that reading may take, by default `io.limits.DEFAULT_LIMITS`.

    Returns:
        A `Volume`; a `LabelMap` where the file says that it holds labels (DICOM SEG, RTSTRUCT,
        3D Slicer's segmentations, NIfTI with the label intent).

    Raises:
        UsageError: several images fit, or an argument does not fit the format.
        ReadError: the file is refused, damaged, too large or irregular; see `vesalius.errors`.
    """
    from vesalius.errors import UsageError
    from vesalius.io.limits import DEFAULT_LIMITS

    limits = limits or DEFAULT_LIMITS
    name = _kind(path)
    if member and name != "npz":
        raise UsageError(f"{path}: member={member!r} names an image of an NPZ file; this is {name}")
    if name in ("dicom", "dicom-zip"):
        from vesalius.io.exams import read_one

        return read_one(
            path,
            reference=reference,
            allow_gaps=allow_gaps,
            resample_irregular=resample_irregular,
            limits=limits,
        )
    if not isinstance(path, str | os.PathLike):
        raise UsageError("a list of files must hold the files of one DICOM series")
    options: dict[str, Any] = {"member": member} if name == "npz" else {}
    volume: Volume = _module(name).read(path, limits=limits, **options)
    return volume


def read_all(
    path: PathLike | Sequence[PathLike],
    *,
    reference: Volume | None = None,
    limits: Limits | None = None,
) -> Iterator[Volume]:
    """Yield every image of a DICOM folder, zip or list, or of an NPZ file; else the only one.

    Structure sets beside images are left out unless `reference` gives them a grid. Raises what
    `read` raises, at the image concerned.
    """
    from vesalius.io.limits import DEFAULT_LIMITS

    limits = limits or DEFAULT_LIMITS
    name = _kind(path)
    if name in ("dicom", "dicom-zip"):
        from vesalius.io.exams import read_each

        yield from read_each(path, reference=reference, limits=limits)
    elif name == "npz" and isinstance(path, str | os.PathLike):
        from vesalius.io import npz

        for member in npz.image_members(path, limits=limits):
            yield npz.read(path, member=member, limits=limits)
    else:
        yield read(path, reference=reference, limits=limits)


def read_labels(
    path: PathLike | Sequence[PathLike],
    *,
    reference: Volume | None = None,
    member: str = "",
    limits: Limits | None = None,
) -> LabelMap:
    """Read any format as a `LabelMap`, with the structures' names where the file holds them.

    Floats are accepted where every value is an integer to within 0.001; a palette image gives its
    indices; a color image is refused unless all its color channels agree.

    Raises what `read` raises, and `CorruptFile` where the values are no labels.
    """
    from vesalius.io.labels import as_labels
    from vesalius.io.limits import DEFAULT_LIMITS

    name = _kind(path)
    if name in ("png", "tiff", "bmp") and isinstance(path, str | os.PathLike):
        from vesalius.io import raster

        indices = raster.read(path, limits=limits or DEFAULT_LIMITS, palette="indices")
        return as_labels(indices)
    volume = read(path, member=member, reference=reference, limits=limits)
    if name == "nifti" and isinstance(path, str | os.PathLike):
        from vesalius.io import nifti

        return as_labels(volume, nifti.read_names(path))
    return as_labels(volume)


def write(volume: Volume, path: PathLike, *, format: str | None = None, **options: Any) -> Path:  # noqa: A002  the public name of the argument
    """Write an image atomically; the format follows the suffix unless `format` names it.

    Formats: `nifti`, `nrrd`, `minc2`, `metaimage`, `png`, `dicom-seg` and `rtstruct` (both need a
    `LabelMap` and `source_files=`, the DICOM files of the image that was segmented). Returns the
    path written. Raises `UsageError` where the format cannot hold the image.
    """
    from vesalius.errors import UsageError, did_you_mean
    from vesalius.io import formats

    name = format or formats.by_suffix(path)
    row = formats.FORMATS.get(name)
    if row is None or not row.can_write:
        what = f"format {name!r}" if name else f"the suffix of '{Path(path).name}'"
        known = formats.WRITABLE
        hint = " a DICOM file is written with format='dicom-seg' or 'rtstruct'." * (name == "dicom")
        raise UsageError(
            f"{what} is not written; formats that are: {', '.join(known)}."
            + (hint or did_you_mean(name, known))
        )
    if name in ("dicom-seg", "rtstruct"):
        return _write_object(name, volume, path, options)
    if options:
        raise UsageError(f"{row.title} takes no option {', '.join(sorted(options))}")
    written: Path = _module(name).write(volume, path)
    return written


def _write_object(name: str, volume: Volume, path: PathLike, options: dict[str, Any]) -> Path:
    from inspect import signature

    from vesalius.errors import UsageError, did_you_mean
    from vesalius.volume import LabelMap

    function: Callable[..., Path]
    if name == "dicom-seg":
        from vesalius.io.dicom.segmentation_writer import write_segmentation

        function = write_segmentation
    else:
        from vesalius.io.dicom.rtstruct_writer import write_rtstruct

        function = write_rtstruct
    if not isinstance(volume, LabelMap):
        raise UsageError(f"{name} holds labels: pass a LabelMap, got a {type(volume).__name__}")
    if "source_files" not in options:
        raise UsageError(
            f"{name} refers to the image that was segmented: pass source_files=, all of its "
            "DICOM files"
        )
    known = list(signature(function).parameters)[2:]
    for option in options:
        if option not in known:
            hint = did_you_mean(option, known)
            raise UsageError(f"{name} takes {', '.join(known)}, got {option!r}.{hint}")
    return function(volume, path, **options)


def _kind(path: PathLike | Sequence[PathLike]) -> str:
    from vesalius.io.formats import sniff

    if not isinstance(path, str | os.PathLike) or os.path.isdir(path):
        return "dicom"
    return sniff(path)


def _module(name: str) -> Any:
    from importlib import import_module

    from vesalius.io.formats import FORMATS

    return import_module(f"vesalius.io.{FORMATS[name].module}")
