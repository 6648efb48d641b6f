# SPDX-License-Identifier: Apache-2.0
"""Color conversion and palettes against pydicom and hand-known colors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.pixels.processing import apply_color_lut, convert_color_space

from vesalius.errors import CorruptFile, UsageError
from vesalius.io.dicom.color import (
    Palette,
    check_photometric,
    from_422,
    palette_to_rgb,
    read_palette,
    ybr_to_rgb,
)
from vesalius.io.dicom.header import read_header
from vesalius.io.dicom.pixels import decode


def test_ybr_full_equals_pydicom() -> None:
    ybr = np.random.default_rng(0).integers(0, 256, (2, 20, 30, 3)).astype(np.uint8)
    wanted = convert_color_space(ybr.copy(), "YBR_FULL", "RGB")
    assert np.abs(ybr_to_rgb(ybr.copy()).astype(int) - wanted).max() <= 1


def test_gray_has_no_chroma_at_any_depth() -> None:
    for kind, middle in (("u1", 128), ("u2", 32768)):
        levels = np.array([0, 100, middle, np.iinfo(kind).max])
        ybr = np.stack([levels, [middle] * 4, [middle] * 4], -1).astype(kind)[None, None]
        assert np.array_equal(ybr_to_rgb(ybr)[0, 0], np.repeat(levels[:, None], 3, 1))


def test_partial_range_reaches_black_and_white() -> None:
    pairs = np.array([[[[16, 235, 128, 128]]]], np.uint8)
    assert from_422(pairs, "YBR_PARTIAL_422")[0, 0].tolist() == [[0, 0, 0], [255, 255, 255]]
    assert from_422(pairs, "YBR_FULL_422")[0, 0].tolist() == [[16] * 3, [235] * 3]


def test_palette_color_equals_pydicom(data: Callable[[str], Path]) -> None:
    path = data("dicom/transfer_syntaxes") / "no-pixel-spacing.dcm"
    header = read_header(path)
    rgb = palette_to_rgb(decode(path, header), read_palette(path, header))
    wanted = apply_color_lut(pydicom.dcmread(path).pixel_array, pydicom.dcmread(path))
    assert np.array_equal(rgb[0], wanted >> 8 if wanted.dtype == np.uint16 else wanted)


def test_indices_off_the_table_take_its_ends() -> None:
    palette = Palette(10, np.array([[1, 2, 3], [4, 5, 6]], np.uint8))
    indices = np.array([0, 10, 11, 500], np.uint16)[:, None]
    assert palette_to_rgb(indices, palette).tolist() == [[1, 2, 3], [1, 2, 3], [4, 5, 6], [4, 5, 6]]
    with pytest.raises(UsageError, match="integers"):
        palette_to_rgb(np.zeros((4, 1), np.float32), palette)


def test_a_short_palette_is_refused(data: Callable[[str], Path], tmp_path: Path) -> None:
    ds = pydicom.dcmread(data("dicom/transfer_syntaxes") / "no-pixel-spacing.dcm")
    ds.GreenPaletteColorLookupTableData = ds.GreenPaletteColorLookupTableData[:100]
    path = tmp_path / "short.dcm"
    ds.save_as(path)
    with pytest.raises(CorruptFile, match="green") as caught:
        read_palette(path, read_header(path))
    assert caught.value.evidence["kind"] == "bad-palette"


@pytest.mark.parametrize(
    ("name", "samples", "columns"), [("RGB", 1, 4), ("MONOCHROME2", 3, 4), ("YBR_FULL_422", 3, 5)]
)
def test_contradictions_are_refused(name: str, samples: int, columns: int) -> None:
    with pytest.raises(CorruptFile, match=name):
        check_photometric(name, samples, columns, 8)
