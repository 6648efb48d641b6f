# SPDX-License-Identifier: Apache-2.0
"""Boxes drawn over their image, one color a class. The picture is patient data like the image."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

from vesalius.tasks.detect.boxes import Boxes
from vesalius.types import Array
from vesalius.volume import Volume

if TYPE_CHECKING:
    from PIL import Image

LONGEST = 1600  # pixels of the picture
# Okabe & Ito (2008): told apart by all.
COLORS = (
    (0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167),
    (230, 159, 0), (86, 180, 233), (240, 228, 66), (0, 0, 0),
)  # fmt: skip
_QUALITY = 90


def draw_boxes(volume: Volume, boxes: Boxes, classes: Sequence[str]) -> bytes:
    """Return a JPEG of a 2D image with its boxes and a legend of the classes with their numbers.

    Columns of the picture are the image's axis i, rows its axis j, as boxes are given.
    """
    from PIL import Image, ImageDraw

    image = Image.fromarray(pixels_of(volume)).convert("RGB")
    factor = min(1.0, LONGEST / max(image.size))
    if factor < 1:
        image = image.resize((round(image.width * factor), round(image.height * factor)))
    pen = ImageDraw.Draw(image)
    width = max(1, round(max(image.size) / 320))
    for corners, label in zip(boxes.corners * factor, boxes.labels, strict=True):
        place = [float(value) for value in corners]
        pen.rectangle(place, outline=COLORS[label % len(COLORS)], width=width)
    return _with_legend(image, boxes, classes)


def _with_legend(image: Image.Image, boxes: Boxes, classes: Sequence[str]) -> bytes:
    from PIL import Image, ImageDraw

    row = 18
    canvas = Image.new("RGB", (image.width, image.height + row * len(classes)), "white")
    canvas.paste(image, (0, 0))
    pen = ImageDraw.Draw(canvas)
    for label, (name, count) in enumerate(zip(classes, boxes.count(len(classes)), strict=True)):
        top = image.height + row * label
        pen.rectangle([4, top + 4, 14, top + 14], fill=COLORS[label % len(COLORS)])
        text = f"{name}: {count}".encode("latin-1", "replace").decode("latin-1")
        pen.text((20, top + 3), text, fill="black")
    stream = BytesIO()
    canvas.save(stream, "JPEG", quality=_QUALITY, subsampling=0)
    return stream.getvalue()


def pixels_of(volume: Volume) -> Array:
    """Return a 2D image as `(rows, columns[, 3])` uint8, columns along its axis i."""
    data = volume.data[:3] if len(volume.data) >= 3 else volume.data[:1]
    if data.dtype != np.uint8:
        values = np.asarray(data, np.float64)
        low, high = np.percentile(values, [0.5, 99.5])
        data = np.clip((values - low) / max(high - low, 1e-12) * 255, 0, 255).round()
    pixels = data[..., 0].astype(np.uint8).transpose(2, 1, 0)
    return np.ascontiguousarray(pixels if pixels.shape[2] == 3 else pixels[..., 0])
