# SPDX-License-Identifier: Apache-2.0
"""Rescaling, lookup tables and inversion against arithmetic in double precision and pydicom."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_file
from pydicom.pixels.processing import apply_modality_lut

from vesalius.errors import CorruptFile, UsageError
from vesalius.io.dicom.header import read_header
from vesalius.io.dicom.modality import (
    ModalityTable,
    invert,
    modality_values,
    read_modality_table,
)


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(["u1", "i2", "u2", "i4"]),
    slope=st.one_of(st.integers(-50, 50).filter(bool), st.floats(-10, 10)),
    intercept=st.one_of(st.integers(-100_000, 100_000), st.floats(-5000, 5000)),
    seed=st.integers(0, 999),
)
def test_rescale_equals_double_precision(
    kind: str, slope: float, intercept: float, seed: int
) -> None:
    info = np.iinfo(kind)
    stored = np.random.default_rng(seed).integers(
        info.min, info.max, (2, 3, 4, 1), endpoint=True, dtype=kind
    )
    before = stored.copy()
    found = modality_values(stored, slope=slope, intercept=intercept)
    wanted = stored.astype(np.float64) * slope + intercept
    assert np.array_equal(stored, before)
    if float(slope).is_integer() and float(intercept).is_integer():
        assert found.dtype.kind in "iu"
        assert np.array_equal(found, wanted)
    else:
        scale = np.abs(stored.astype(np.float64) * slope).max() + abs(intercept) + 1e-30
        assert np.abs(found - wanted).max() <= 3e-7 * scale


def test_each_frame_has_its_own_slope() -> None:
    stored = np.ones((3, 2, 2, 1), np.uint16)
    found = modality_values(stored, slope=np.array([1, 2, 3]), intercept=np.array([0, 0, -5]))
    assert found[:, 0, 0, 0].tolist() == [1, 2, -2]
    with pytest.raises(UsageError, match="per frame"):
        modality_values(stored, slope=np.ones(2))


def test_identity_copies_nothing() -> None:
    stored = np.arange(4, dtype=np.uint8).reshape(1, 2, 2, 1)
    assert modality_values(stored, slope=1, intercept=0) is stored


def test_lookup_table_equals_pydicom(tmp_path: Path) -> None:
    ds = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
    del ds.RescaleSlope, ds.RescaleIntercept
    item = pydicom.Dataset()
    item.LUTDescriptor = [1000, 200, 16]
    item.ModalityLUTType = "OD"
    table = (np.arange(1000) * 7 % 5001).astype("<u2")
    item.LUTData = table.tobytes()
    item["LUTData"].VR = "OW"
    ds.ModalityLUTSequence = [item]
    path = tmp_path / "lut.dcm"
    ds.save_as(path)
    header = read_header(path)
    found = read_modality_table(path, header)
    assert (found.first, found.unit) == (200, "OD")
    stored = ds.pixel_array
    assert np.array_equal(
        modality_values(stored[None, ..., None], table=found)[0, ..., 0],
        apply_modality_lut(stored, ds),
    )
    item.LUTData = table[:10].tobytes()
    ds.save_as(path)
    with pytest.raises(CorruptFile, match="10 of 1,000"):
        read_modality_table(path, read_header(path))


def test_table_and_slope_exclude_each_other() -> None:
    table = ModalityTable(0, np.arange(4, dtype=np.uint16), "US")
    with pytest.raises(UsageError, match="excludes"):
        modality_values(np.zeros((1, 1, 1, 1), np.uint8), slope=2, table=table)


@pytest.mark.parametrize(("bits", "signed"), [(8, False), (12, False), (12, True), (16, True)])
def test_inversion_swaps_the_ends_and_is_its_own_inverse(bits: int, signed: bool) -> None:
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    kind = ("i" if signed else "u") + ("1" if bits == 8 else "2")
    stored = np.array([low, 0, 5, high], kind)
    once = invert(stored, bits_stored=bits, is_signed=signed)
    assert (once[0], once[-1]) == (high, low)
    assert np.array_equal(invert(once, bits_stored=bits, is_signed=signed), stored)
