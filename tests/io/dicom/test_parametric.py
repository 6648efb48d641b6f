# SPDX-License-Identifier: Apache-2.0
"""Parametric maps written by dcmqi and highdicom, against the values that went in."""

from __future__ import annotations

import json
import subprocess
import sysconfig
import zipfile
from collections.abc import Callable
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
import SimpleITK

from vesalius.errors import CorruptFile, GeometryError, UnsupportedFormat
from vesalius.geometry import LPS_TO_RAS
from vesalius.io.dicom.assemble import read_series
from vesalius.io.dicom.parametric import read_parametric_map

WriteSeries = Callable[..., list[Path]]


def code(value: str, scheme: str, meaning: str) -> dict[str, str]:
    return {"CodeValue": value, "CodingSchemeDesignator": scheme, "CodeMeaning": meaning}


META = {
    "@schema": "https://raw.githubusercontent.com/qiicr/dcmqi/master/doc/schemas/pm-schema.json#",
    "SeriesDescription": "ADC",
    "SeriesNumber": "701",
    "InstanceNumber": "1",
    "BodyPartExamined": "PROSTATE",
    "QuantityValueCode": code("113041", "DCM", "Apparent Diffusion Coefficient"),
    "MeasurementUnitsCode": code("um2/s", "UCUM", "um2/s"),
    "MeasurementMethodCode": code("113250", "DCM", "Mono-exponential ADC model"),
    "AnatomicRegionSequence": code("41216001", "SCT", "Prostate"),
    "DerivationCode": code("110808", "DCM", "Calculation"),
    "FrameLaterality": "U",
    "DerivedPixelContrast": "ADC",
    "ContentCreatorName": "Vesalius",
    "RealWorldValueSlope": 1,
}


@pytest.mark.parametrize("name", ["pm-example", "pm-example-float"])
def test_dcmqi_s_maps_equal_their_references(
    data: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    tool = Path(sysconfig.get_path("scripts")) / "itkimage2paramap"
    if not tool.exists():
        pytest.skip("dcmqi is not installed")
    folder = data("dicom/dcmqi/paramaps")
    with zipfile.ZipFile(folder / "pm-example-dcm.zip") as archive:
        archive.extractall(tmp_path)
    (tmp_path / "meta.json").write_text(json.dumps(META))
    path = tmp_path / "pm.dcm"
    subprocess.run(
        [tool, "--inputDICOMDirectory", tmp_path / "701-ADCb500", "--inputImage",
         folder / f"{name}.nrrd", "--inputMetadata", tmp_path / "meta.json", "--outputDICOM", path],
        check=True, capture_output=True,
    )  # fmt: skip
    found = read_parametric_map(path)
    image = SimpleITK.ReadImage(str(folder / f"{name}.nrrd"))
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    assert np.abs(found.affine - LPS_TO_RAS @ affine).max() < 1e-3
    values = SimpleITK.GetArrayFromImage(image).transpose(2, 1, 0)
    assert np.array_equal(found.data[0], values.astype(np.float32))
    assert found.unit == "um2/s"
    assert found.source.metadata["quantities"] == ["Apparent Diffusion Coefficient"]


def write_map(
    write_series: WriteSeries, path: Path, values: np.ndarray, slopes: list[float]
) -> Path:
    """Write `values` (slice, row, column, channel), one real-world value mapping per channel."""
    kwargs = {"edit": lambda _, ds: fill_type_2(ds)}
    files = write_series(np.zeros(values.shape[:3], np.int16), **kwargs)
    mappings = [
        [
            hd.pm.RealWorldValueMapping(
                lut_label=f"m{n}",
                lut_explanation=f"map {n}",
                unit=hd.sr.CodedConcept("mm2/s", "UCUM", "mm2/s"),
                value_range=(-1e6, 1e6) if values.dtype.kind == "f" else (0, 60000),
                slope=slope,
                intercept=n * 10.0,
            )
        ]
        for n, slope in enumerate(slopes)
    ]
    sources = sorted(
        (pydicom.dcmread(file) for file in files), key=lambda ds: ds.ImagePositionPatient[2]
    )
    hd.pm.ParametricMap(
        sources, values, hd.UID(), 9, hd.UID(), 1, "Maker", "model", "1", "1",
        contains_recognizable_visual_features=False,
        real_world_value_mappings=mappings if len(slopes) > 1 else mappings[0],
        voi_lut_transformations=[hd.VOILUTTransformation(0.0, 1.0)],
    ).save_as(path)  # fmt: skip
    return path


def fill_type_2(ds: pydicom.Dataset) -> None:
    ds.FrameOfReferenceUID = "1.2.9"
    for keyword in ("PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID",
                    "StudyDate", "StudyTime"):  # fmt: skip
        setattr(ds, keyword, "")


@pytest.mark.parametrize("kind", [np.uint16, np.float32, np.float64])
def test_slope_and_intercept_are_applied(
    write_series: WriteSeries, tmp_path: Path, kind: type
) -> None:
    values = (np.random.default_rng(0).random((3, 6, 5)) * 1000).astype(kind)
    found = read_parametric_map(write_map(write_series, tmp_path / "pm.dcm", values, [0.25]))
    assert found.data.dtype == (np.float64 if kind is np.float64 else np.float32)
    assert np.allclose(found.data[0], values.transpose(2, 1, 0) * 0.25, rtol=1e-6)
    assert found.unit == "mm2/s"
    assert found.affine[2, 2] == pytest.approx(2.5)


def test_several_quantities_become_channels(write_series: WriteSeries, tmp_path: Path) -> None:
    values = np.random.default_rng(1).random((2, 6, 5, 2)).astype(np.float32)
    found = read_parametric_map(write_map(write_series, tmp_path / "pm.dcm", values, [1.0, 3.0]))
    assert found.data.shape == (2, 5, 6, 2)
    assert found.channels == ("map 0", "map 1")
    for n, slope in enumerate((1.0, 3.0)):
        wanted = values[..., n].transpose(2, 1, 0) * slope + 10 * n
        assert np.allclose(found.data[n], wanted, rtol=1e-6)


def test_missing_slices_and_mappings_are_refused(
    write_series: WriteSeries, tmp_path: Path, data: Callable[[str], Path]
) -> None:
    values = np.ones((4, 6, 5), np.float32)
    path = write_map(write_series, tmp_path / "pm.dcm", values, [1.0])
    ds = pydicom.dcmread(path)
    del ds.PerFrameFunctionalGroupsSequence[1]
    ds.NumberOfFrames = 3
    ds.FloatPixelData = values[:3].tobytes()
    ds.save_as(tmp_path / "gap.dcm")
    with pytest.raises(GeometryError, match="1 of 4 slices"):
        read_parametric_map(tmp_path / "gap.dcm")
    ds = pydicom.dcmread(path)
    for groups in (*ds.SharedFunctionalGroupsSequence, *ds.PerFrameFunctionalGroupsSequence):
        if "RealWorldValueMappingSequence" in groups:
            del groups.RealWorldValueMappingSequence
    ds.save_as(tmp_path / "bare.dcm")
    with pytest.raises(CorruptFile, match="mapping"):
        read_parametric_map(tmp_path / "bare.dcm")
    slice_of_a_series = data("dicom/dcmqi/paramaps") / "pm-example-slice.dcm"
    with pytest.raises(UnsupportedFormat, match="Parametric Map"):
        read_parametric_map(slice_of_a_series)
    assert read_series([slice_of_a_series])
