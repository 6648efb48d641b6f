# SPDX-License-Identifier: Apache-2.0
"""A label map as a file of the format that is wanted; of DICOM, with who made it inside."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vesalius.flows.predicting.prediction import FORMATS

if TYPE_CHECKING:
    from vesalius.io.maker import Maker
    from vesalius.volume import LabelMap, Volume

DICOM_OBJECTS = ("dicom-seg", "dicom-labelmap", "rtstruct")


def write_label_map(
    found: LabelMap, volume: Volume, stem: Path, form: str, maker: Maker | None = None
) -> Path:
    """Write a label map and return its path.

    Args:
        found: on the image's grid.
        volume: the image.
        stem: of the path; the format's suffix is appended.
        form: one of `FORMATS`.
        maker: what made it; said in DICOM objects.
    """
    from vesalius import io

    path = stem.with_name(stem.name + FORMATS[form])
    if form not in DICOM_OBJECTS:
        return io.write(found, path, format=form)
    files = volume.source.files
    if form == "dicom-labelmap":
        io.write(found, path, format="dicom-seg", source_files=files, kind="LABELMAP")
    else:
        io.write(found, path, format=form, source_files=files)
    if maker is not None:
        from vesalius.io.dicom.derived import sign

        sign(path, maker)
    return path
