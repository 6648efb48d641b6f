# SPDX-License-Identifier: Apache-2.0
"""Key images: a slice with the answer burned in, as Secondary Capture (PS3.3 section A.8.1).

Any viewer shows them, also one that knows no segmentations. They are pictures and say so: derived,
secondary, with annotation burned in, and in the margin what made them and that they are not for
diagnosis. The margin lies below the image and hides nothing of it.
"""

from __future__ import annotations

import os
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vesalius.errors import UsageError
from vesalius.io.dicom.contours import outlines
from vesalius.io.dicom.derived import code, derived, equipment, reference, save
from vesalius.io.dicom.display import displayed
from vesalius.io.dicom.header import Header, read_header
from vesalius.io.dicom.segmentation_writer import label_values
from vesalius.io.dicom.source_planes import source_planes
from vesalius.io.limits import DEFAULT_LIMITS, Limits
from vesalius.io.maker import NOT_FOR_DIAGNOSIS, Maker
from vesalius.types import Array, PathLike
from vesalius.volume import LabelMap

if TYPE_CHECKING:
    from pydicom import Dataset

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
# Okabe & Ito (2008), without black: told apart by all
COLORS = (
    (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0),
    (204, 121, 167),
)  # fmt: skip
_SIDE = 512  # pixels that the image's longer side is enlarged to, by a whole factor
_LINE, _MARGIN = 14, 4
_SOURCE = ("121322", "DCM", "Source image for image processing operation")
_SEGMENTED = ("113076", "DCM", "Segmentation")


def write_key_image(
    path: PathLike,
    *,
    source_files: Sequence[PathLike],
    maker: Maker,
    label_map: LabelMap | None = None,
    words: Sequence[str] = (),
    number: int = 1,
    series_number: int = 303,
    limits: Limits = DEFAULT_LIMITS,
) -> Path:
    """Write the telling slice of an image with its structures' outlines; returns the path.

    Args:
        path: the file to write, atomically and durably.
        source_files: all DICOM files of one image.
        maker: what made the answer.
        label_map: on the source's grid; the slice with the largest labeled area is shown. None:
            the middle slice, without outlines.
        words: what the answer says, a line each, for the margin.
        number: of the picture in its series.
        series_number: of the new series.
        limits: for reading the sources.

    Raises:
        GeometryError: the label map is off the source's grid.
        UsageError: no files.
    """
    if label_map is None:
        source, file, header, frame = _middle(source_files, limits)
        masks: Mapping[str, Array] = {}
    else:
        source, file, header, frame, masks = _fullest(label_map, source_files, limits)
    image = displayed(file, header, frame, limits=limits)
    picture = _picture(image, masks, [*words, maker.line, NOT_FOR_DIAGNOSIS])
    made = derived(source, SECONDARY_CAPTURE, header.modality or "OT", "Key images by Vesalius")
    made.SeriesNumber, made.InstanceNumber = series_number, number
    made.ConversionType = "WSD"
    made.ImageType = ["DERIVED", "SECONDARY"]
    made.PatientOrientation = ""
    made.BurnedInAnnotation = "YES"
    made.DerivationDescription = f"Outlines and words burned in. {NOT_FOR_DIAGNOSIS}. {maker.line}"
    if label_map is not None:
        made.DerivationCodeSequence = [code(*_SEGMENTED)]
    item = reference(source, frame if (header.frames or 1) > 1 else None)
    item.PurposeOfReferenceCodeSequence = [code(*_SOURCE)]
    made.SourceImageSequence = [item]
    made.ContributingEquipmentSequence = [equipment(maker)]
    _put_pixels(made, picture)
    return save(made, path)


def _middle(files: Sequence[PathLike], limits: Limits) -> tuple[Dataset, str, Header, int]:
    from pydicom import dcmread

    if not files:
        raise UsageError("source_files must name the DICOM files of the image, got none")
    headers = [(os.fspath(file), read_header(file, limits=limits)) for file in files]
    headers.sort(key=lambda one: (one[1].instance_number or 0, one[0]))
    file, header = headers[len(headers) // 2]
    source = dcmread(file, stop_before_pixels=True)
    return source, file, header, (header.frames or 1) // 2


def _fullest(
    label_map: LabelMap, files: Sequence[PathLike], limits: Limits
) -> tuple[Dataset, str, Header, int, Mapping[str, Array]]:
    """Return the frame with the largest labeled area, and its structures as `(column, row)`."""
    planes = source_planes(label_map, files, limits=limits)
    areas = np.count_nonzero(planes.data.any(axis=0), axis=(0, 1))  # (k)
    places = [areas[k] for k in planes.index]
    n = int(np.argmax(places)) if max(places) else len(places) // 2
    one, k = planes.slices[n], planes.index[n]
    by_path = dict(zip(dict.fromkeys(s.path for s in planes.slices), planes.datasets, strict=True))
    masks = {
        label_map.names.get(value, f"label {value}"): (planes.data[..., k] == value).any(axis=0)
        for value in label_values(label_map)
    }
    return by_path[one.path], one.path, one.header, one.frame, masks


def _picture(image: Array, masks: Mapping[str, Array], words: Sequence[str]) -> Array:
    """Return `(rows, columns, 3)`: the image enlarged, outlines on it, words below."""
    from PIL import Image, ImageDraw

    factor = max(1, _SIDE // max(image.shape[:2]))
    rows, columns = image.shape[0] * factor, image.shape[1] * factor
    shown = Image.fromarray(image).convert("RGB").resize((columns, rows), Image.Resampling.BICUBIC)
    legend = [name for name, mask in masks.items() if mask.any()]
    across = max(16, (columns - 2 * _MARGIN) // 7)
    lines = [part for line in words for part in textwrap.wrap(line, across)]
    margin = _LINE * (len(legend) + len(lines)) + 2 * _MARGIN
    sheet = Image.new("RGB", (columns, rows + margin))
    sheet.paste(shown, (0, 0))
    draw = ImageDraw.Draw(sheet)
    colors = {name: COLORS[n % len(COLORS)] for n, name in enumerate(masks)}
    for name, mask in masks.items():
        for ring in outlines(mask):
            # Indices are of pixels' centers; a picture's coordinates begin at its corner.
            points = [tuple(point) for point in (ring + 0.5) * factor]
            draw.line([*points, points[0]], fill=colors[name], width=max(1, factor // 2))
    at = rows + _MARGIN
    for name in legend:
        draw.rectangle((_MARGIN, at + 2, _MARGIN + 9, at + 11), fill=colors[name])
        draw.text((_MARGIN + 16, at), _plain(name), fill=(255, 255, 255))
        at += _LINE
    for line in lines:
        draw.text((_MARGIN, at), _plain(line), fill=(255, 255, 255))
        at += _LINE
    return np.asarray(sheet)


def _plain(text: str) -> str:
    """Return what the built-in font can draw."""
    return text.encode("latin-1", "replace").decode("latin-1")


def _put_pixels(made: Dataset, picture: Array) -> None:
    made.Rows, made.Columns = picture.shape[:2]
    made.SamplesPerPixel, made.PhotometricInterpretation = 3, "RGB"
    made.PlanarConfiguration = 0
    made.BitsAllocated, made.BitsStored, made.HighBit = 8, 8, 7
    made.PixelRepresentation = 0
    made.LossyImageCompression = "00"
    raw = picture.tobytes()
    made.PixelData = raw + bytes(len(raw) % 2)
    made["PixelData"].VR = "OB"
