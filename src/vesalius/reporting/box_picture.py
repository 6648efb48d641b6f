# SPDX-License-Identifier: Apache-2.0
"""A 2D image with boxes: dashed those of the truth, solid those that were found, color the class.

The picture is patient data like the image that it comes from.
"""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

from vesalius.reporting.figures import COLORS
from vesalius.reporting.html import data_uri
from vesalius.tasks.detect.boxes import Boxes
from vesalius.tasks.detect.picture import pixels_of
from vesalius.volume import Volume

if TYPE_CHECKING:
    from PIL import ImageDraw

SIDE = 640  # pixels of the longer side
_DASH, _GAP = 6, 5


def boxes_picture(volume: Volume, truth: Boxes, found: Boxes) -> str:
    """Return the image as a `data:` address (JPEG), columns along its axis i, rows along j."""
    from PIL import Image, ImageDraw

    picture = Image.fromarray(pixels_of(volume)).convert("RGB")
    factor = SIDE / max(picture.size)
    size = max(1, round(picture.width * factor)), max(1, round(picture.height * factor))
    picture = picture.resize(size, Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(picture)
    for boxes, dashed in ((found, False), (truth, True)):
        for corners, label in zip(boxes.corners * factor, boxes.labels, strict=True):
            place = [float(value) for value in corners]
            color = COLORS[int(label) % len(COLORS)]
            if dashed:
                _dashed(pen, place, color)
            else:
                pen.rectangle(place, outline=color, width=2)
    stream = BytesIO()
    picture.save(stream, "JPEG", quality=86, subsampling=0)
    return data_uri(stream.getvalue(), "image/jpeg")


def _dashed(pen: ImageDraw.ImageDraw, place: list[float], color: str) -> None:
    """Draw the box with gaps, on white, so that it shows on a solid one of the same color."""
    x0, y0, x1, y1 = place
    for start, end in (((x0, y0), (x1, y0)), ((x1, y0), (x1, y1)), ((x1, y1), (x0, y1)),
                       ((x0, y1), (x0, y0))):  # fmt: skip
        a, b = np.array(start), np.array(end)
        length = float(np.linalg.norm(b - a))
        way = (b - a) / max(length, 1e-9)
        for begin in np.arange(0, length, _DASH + _GAP):
            ends = [tuple(a + way * begin), tuple(a + way * min(begin + _DASH, length))]
            pen.line(ends, fill="white", width=4)
            pen.line(ends, fill=color, width=2)
