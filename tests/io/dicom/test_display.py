# SPDX-License-Identifier: Apache-2.0
"""Frames for a screen: windows by the standard's own formulas, padding, inversion, color."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vesalius.errors import UsageError
from vesalius.io.dicom.display import Window, displayed, stated_window
from vesalius.io.dicom.header import read_header


def shown(path, **options):
    return displayed(path, read_header(path), **options)


def standard_linear(x, center, width):
    """PS3.3 C.11.2.1.2.1, word for word, with y from 0 to 255."""
    if x <= center - 0.5 - (width - 1) / 2:
        return 0.0
    if x > center - 0.5 + (width - 1) / 2:
        return 255.0
    return ((x - (center - 0.5)) / (width - 1) + 0.5) * 255


@given(x=st.integers(-3000, 3000), center=st.integers(-500, 500), width=st.integers(1, 4000))
def test_a_linear_window_is_the_standards(x, center, width):
    gray = int(Window(center, width).gray(np.array([x]))[0])
    assert abs(gray - standard_linear(x, center, width)) <= 0.5 + 1e-9


def test_exact_and_sigmoid_windows():
    exact = Window(100, 200, "LINEAR_EXACT").gray(np.array([-1, 0, 100, 200, 201]))
    assert exact.tolist() == [0, 0, 128, 255, 255]
    sigmoid = Window(100, 200, "SIGMOID").gray(np.array([-1e6, 100, 1e6]))
    assert sigmoid.tolist() == [0, 128, 255]


@pytest.mark.parametrize(
    "given_", [(0, 0, "LINEAR"), (0, 0, "SIGMOID"), (np.nan, 5, "LINEAR"), (0, 5, "CURVED")]
)
def test_windows_that_are_none(given_):
    with pytest.raises(UsageError, match="a window"):
        Window(*given_)


def test_the_files_own_window_works_on_modality_values(write_series):
    def edit(_, ds):
        ds.RescaleSlope, ds.RescaleIntercept = 2, -1000
        ds.WindowCenter, ds.WindowWidth = ["0", "40"], ["1001", "400"]

    pixels = np.array([[[0, 250, 500, 501], [750, 1000, 600, 9]]], np.int16)
    (path,) = write_series(pixels, modality="CT", edit=edit)
    assert stated_window(path) == Window(0.0, 1001.0)
    gray = shown(path)
    assert gray.shape == (2, 4)
    wanted = [[standard_linear(2 * x - 1000, 0, 1001) for x in row] for row in pixels[0]]
    assert np.abs(gray - np.array(wanted)).max() <= 0.5
    other = shown(path, window=Window(1000, 1))
    assert other.tolist() == [[0, 0, 0, 0], [0, 255, 0, 0]]


def test_without_a_window_values_are_spread_and_padding_is_not_counted(write_series):
    def edit(_, ds):
        ds.PixelPaddingValue = -2000
        ds.WindowCenter, ds.WindowWidth = "5", "0"  # none that is one

    pixels = np.full((1, 40, 40), -2000, np.int16)
    pixels[0, :, 20:] = np.linspace(0, 100, 20)
    gray = shown(write_series(pixels, edit=edit)[0])
    assert gray[0, 0] == 0
    assert gray[0, 30] == pytest.approx(134, abs=8)
    assert gray[0, -1] == 255
    constant = shown(write_series(np.full((1, 4, 4), 7, np.int16))[0])
    assert constant.shape == (4, 4)


def test_monochrome1_is_shown_inverted_and_color_as_it_is(write_series):
    pixels = np.arange(16, dtype=np.uint8).reshape(1, 4, 4)

    def edit(_, ds):
        ds.PhotometricInterpretation = "MONOCHROME1"

    (plain,) = write_series(pixels, modality="CR")
    (turned,) = write_series(pixels, modality="CR", edit=edit)
    assert np.array_equal(shown(turned), 255 - shown(plain))
    color = np.random.default_rng(0).integers(0, 255, (1, 4, 5, 3)).astype(np.uint8)
    assert np.array_equal(shown(write_series(color)[0]), color[0])


def test_the_frames_of_a_real_enhanced_file_keep_their_order_of_values(data):
    path = data("dicom/enhanced") / "In/Philips/IM_0027_fMAP.dcm"
    header = read_header(path)
    stored = pydicom.dcmread(path).pixel_array
    for n in (0, len(stored) - 1):
        order = np.argsort(stored[n], axis=None, kind="stable")
        gray = displayed(path, header, n)
        assert (np.diff(gray.ravel()[order].astype(int)) >= 0).all()
        assert gray.max() > gray.min()
