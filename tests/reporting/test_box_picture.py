# SPDX-License-Identifier: Apache-2.0
"""Boxes are drawn where they lie, those of the truth with gaps."""

from __future__ import annotations

import base64
from io import BytesIO

import numpy as np
from PIL import Image

from vesalius.geometry import flat_affine
from vesalius.reporting.box_picture import SIDE, boxes_picture
from vesalius.reporting.figures import COLORS
from vesalius.tasks.detect.boxes import Boxes, empty
from vesalius.volume import Volume

WIDE, HIGH = 80, 60


def test_boxes_lie_where_the_objects_are() -> None:
    volume = Volume(np.full((1, WIDE, HIGH, 1), 255, np.uint8), flat_affine(), calibrated=False)
    one = Boxes(np.array([[10.0, 20.0, 40.0, 30.0]]), np.array([1]), np.ones(1))

    def drawn(truth: Boxes, found: Boxes) -> np.ndarray:
        uri = boxes_picture(volume, truth, found)
        image = Image.open(BytesIO(base64.b64decode(uri.split(",", 1)[1])))
        assert image.size == (SIDE, SIDE * HIGH // WIDE)
        color = [int(COLORS[1][place : place + 2], 16) for place in (1, 3, 5)]
        return np.abs(np.asarray(image, int) - color).max(axis=2) < 60  # [row, column]

    factor = SIDE / WIDE
    solid, dashed = drawn(empty(), one), drawn(one, empty())
    for marked in (solid, dashed):
        rows, columns = np.nonzero(marked)
        found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(found, np.array([10, 20, 40, 30]) * factor, atol=3)
    top = slice(int(20 * factor) - 1, int(20 * factor) + 3)
    across = slice(int(10 * factor) + 4, int(40 * factor) - 4)
    assert solid[top, across].any(axis=0).all()
    gaps = dashed[top, across].any(axis=0).mean()
    assert 0.3 < gaps < 0.9
