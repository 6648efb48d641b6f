# SPDX-License-Identifier: Apache-2.0
"""Damaged DICOM objects: whatever byte is wrong, the error is a typed one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vesalius.errors import CorruptFile, LimitExceeded, ReadError
from vesalius.io.dicom.objects import parsing, read_object
from vesalius.io.dicom.rtstruct import read_rtstruct
from vesalius.io.dicom.segmentation import read_segmentation
from vesalius.volume import Volume

GRID = Volume(np.zeros((1, 512, 512, 2), np.int16), np.diag([-0.488281, -0.488281, 5.0, 1.0]))


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    file=st.sampled_from(["seg", "labelmap", "rtstruct"]),
    seed=st.integers(0, 2**31),
    count=st.integers(1, 30),
)
def test_flipped_bytes_give_typed_errors(
    data: Callable[[str], Path], tmp_path: Path, file: str, seed: int, count: int
) -> None:
    source = {
        "seg": data("dicom/dcmqi/segmentations") / "24x38x3/seg/label.seg",
        "labelmap": data("dicom/dcmqi/segmentations") / "sparse-labelmap-ppv5.dcm",
        "rtstruct": data("dicom/rt_utils/mock_data") / "rt.dcm",
    }[file]
    content = bytearray(source.read_bytes())
    rng = np.random.default_rng(seed)
    for place in rng.integers(132, len(content), count):
        content[place] = int(rng.integers(256))
    path = tmp_path / "damaged.dcm"
    path.write_bytes(content)
    with suppress(ReadError):  # and nothing else
        if file == "rtstruct":
            read_rtstruct(path, GRID)
        else:
            read_segmentation(path)


def test_deflated_objects_are_read_under_a_cap(data: Callable[[str], Path], tmp_path: Path) -> None:
    ds = pydicom.dcmread(data("dicom/dcmqi/segmentations") / "liver.dcm")
    ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1.99"
    path = tmp_path / "deflated.dcm"
    ds.save_as(path)
    _, found = read_object(path)
    assert found.SegmentSequence == ds.SegmentSequence
    assert "PixelData" not in found
    ds.add_new(0x00090010, "LO", "PRIVATE")
    ds.add_new(0x00091001, "OB", bytes(250 << 20))
    ds.save_as(path)
    with pytest.raises(LimitExceeded, match="inflates"):
        read_object(path)


def test_errors_of_the_parser_are_named() -> None:
    with pytest.raises(CorruptFile, match=r"scan: an element .*KeyError"), parsing("scan"):
        {}["x"]
