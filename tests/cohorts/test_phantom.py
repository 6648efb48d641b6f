# SPDX-License-Identifier: Apache-2.0
"""The phantom: physics against hand-known values, files against independent readers."""

from __future__ import annotations

import csv
import hashlib
import json
import pkgutil
from collections import Counter
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813 - its customary name

from vesalius.cohorts.phantom import (
    PhantomTruth,
    new_exam,
    physics,
    simulate_patient,
    write_phantom,
)
from vesalius.cohorts.phantom.anatomy import Waves, _world
from vesalius.cohorts.phantom.defects import KINDS
from vesalius.cohorts.phantom.exam import DIAGNOSES, assignment, examine
from vesalius.cohorts.phantom.physics import Tissue
from vesalius.errors import UsageError
from vesalius.types import Array
from vesalius.volume import LabelMap, Volume

CLEAN, SPOILED = 5, 16  # patients; the first five come from all three hospitals
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> PhantomTruth:
    return write_phantom(tmp_path_factory.mktemp("clean"), patients=CLEAN, seed=0, defects=False)


@pytest.fixture(scope="module")
def spoiled(tmp_path_factory: pytest.TempPathFactory) -> PhantomTruth:
    return write_phantom(tmp_path_factory.mktemp("spoiled"), patients=SPOILED, seed=0)


def _files(truth: PhantomTruth, patient: int, kind: str) -> list[Path]:
    return sorted((truth.data / truth.patients[patient].series[kind][1]).iterdir())


def _digests(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file()
    }


# physics


def test_spin_echo_known_values() -> None:
    long_tr = physics.spin_echo(np.array(1.0), np.array(100.0), np.array(0.8), 1e9, 0.0)
    assert long_tr == pytest.approx(0.8)
    half = physics.spin_echo(
        np.array(1000.0), np.array(50.0), np.array(1.0), 1000 * np.log(2), 50 * np.log(2)
    )
    assert half == pytest.approx(0.25)


def test_rician_noise_in_air_has_rayleigh_mean() -> None:
    noise = physics.rician(np.zeros((50, 50, 50), np.float32), 2.0, np.random.default_rng(0))
    assert noise.mean() == pytest.approx(2 * np.sqrt(np.pi / 2), rel=0.01)
    assert noise.min() >= 0


def test_bias_field_is_smooth_bounded_and_neutral() -> None:
    field = physics.bias_field((40, 30, 20), 0.3, np.random.default_rng(1))
    assert np.abs(np.log(field)).max() == pytest.approx(0.3, rel=1e-4)
    assert np.log(field).mean() == pytest.approx(0, abs=1e-5)
    assert max(np.abs(np.diff(field, axis=axis)).max() for axis in range(3)) < 0.08


def test_correlated_noise_has_its_deviation_and_is_correlated() -> None:
    noise = physics.correlated_noise((64, 64, 8), 10.0, np.random.default_rng(2))
    assert noise.std() == pytest.approx(10, rel=1e-3)
    assert np.corrcoef(noise[1:].ravel(), noise[:-1].ravel())[0, 1] > 0.15
    assert abs(np.corrcoef(noise[..., 1:].ravel(), noise[..., :-1].ravel())[0, 1]) < 0.02


def test_beer_lambert_of_a_water_slab() -> None:
    assert physics.attenuation(np.array([-1000.0, 0.0])).tolist() == [0.0, 0.02059]
    line = np.full((64, 64), 200 * 0.02059)  # 20 cm of water
    measured = physics.radiograph(line, 1e6, 0.0, np.random.default_rng(3))
    assert measured.mean() == pytest.approx(4.118, rel=1e-3)
    assert measured.std() == pytest.approx(1 / np.sqrt(1e6 * np.exp(-4.118)), rel=0.1)
    scattered = physics.radiograph(line, 1e6, 0.5, np.random.default_rng(3))
    assert scattered.mean() == pytest.approx(4.118 - np.log(1.5), rel=1e-3)


def test_waves_on_a_grid_equal_waves_at_points() -> None:
    rng = np.random.default_rng(4)
    waves = Waves.draw(rng, 2.0, (60, 200))
    affine = np.eye(4)
    affine[:3] = rng.normal(0, 3, (3, 4))
    points = _world(affine, (9, 8, 7))
    np.testing.assert_allclose(waves.on_grid(affine, (9, 8, 7)), waves(*points), atol=1e-4)


def test_every_tissue_has_properties_and_cysts_are_fluid() -> None:
    hu, t2 = physics.table("hu"), physics.table("t2", tesla=1.5)
    assert len(hu) == len(Tissue)
    assert hu[Tissue.CYST] < 20 < hu[Tissue.TUMOR] < hu[Tissue.LIVER]
    assert t2[Tissue.LIVER] < t2[Tissue.TUMOR] < 112 < t2[Tissue.CYST]  # McFarland's threshold


# anatomy


def test_tissue_does_not_depend_on_the_grid() -> None:
    """A part of a grid, painted alone, equals that part of the whole."""
    from vesalius.cohorts.phantom.anatomy import draw_anatomy

    anatomy = draw_anatomy(np.random.default_rng(5), female=True, lesions=(("tumor", 25.0),))
    affine = np.array([[-4.0, 0, 0, 190], [0, -4, 0, 150], [0, 0, 8, -90], [0, 0, 0, 1]])
    whole = anatomy.tissues(affine, (96, 76, 24))
    part = affine.copy()
    part[:3, 3] += affine[:3, :3] @ (30, 20, 9)
    np.testing.assert_array_equal(anatomy.tissues(part, (40, 30, 7)), whole[30:70, 20:50, 9:16])
    points = _world(affine, whole.shape)  # type: ignore[arg-type]  # three integers
    everywhere = anatomy.tissues_at(*points)
    assert (everywhere != whole).mean() < 1e-5  # rounding of waves at surfaces


def test_lesions_have_their_stated_size_and_place() -> None:
    checked = 0
    for index in range(12):
        exam = examine(0, index, ("CT",))
        mask = exam.mask
        assert mask is not None
        lesions = exam.patient.lesions
        assert bool(lesions) == (exam.patient.diagnosis != "none") == bool((mask.data == 5).any())
        for lesion in lesions:
            assert 8 <= lesion.diameter_mm <= 30
        if len(lesions) != 1 or lesions[0].diameter_mm < 14:
            continue
        volume = float((mask.data == 5).sum() * abs(np.linalg.det(mask.affine)))
        ball = np.pi / 6 * lesions[0].diameter_mm ** 3
        assert 0.6 * ball < volume < 1.4 * ball
        center = np.append(np.argwhere(mask.data[0] == 5).mean(axis=0), 1)
        assert np.linalg.norm((mask.affine @ center)[:3] - lesions[0].center) < 8
        assert f"{lesions[0].diameter_mm:.0f} mm" in exam.patient.words
        checked += 1
    assert checked >= 2


def test_organs_lie_where_they_belong() -> None:
    """Liver right, spleen left, spine behind, lungs dark and above: in world coordinates."""
    images = simulate_patient(0, 1)
    mask = images["mask"]
    assert isinstance(mask, LabelMap)
    centers = {}
    for label, name in mask.names.items():
        voxels = np.argwhere(mask.data[0] == label)
        if len(voxels):
            centers[name] = (mask.affine @ np.append(voxels.mean(axis=0), 1))[:3]
    assert centers["liver"][0] > 20 > -20 > centers["spleen"][0]
    assert centers["spine"][1] < centers["kidneys"][1] < centers["liver"][1]
    assert centers["kidneys"][2] < centers["liver"][2]
    liters = {
        name: (mask.data == label).sum() * abs(np.linalg.det(mask.affine)) / 1e6
        for label, name in mask.names.items()
    }
    assert 0.9 < liters["liver"] < 2.4
    assert 0.08 < liters["spleen"] < 0.4
    assert 0.15 < liters["kidneys"] < 0.6


@pytest.mark.parametrize("index", range(CLEAN))
def test_contrasts_are_those_of_the_tables(index: int) -> None:
    images = simulate_patient(0, index)
    mask, ct = images["mask"].data[0], images["CT"].data[0]
    assert np.median(ct[mask == 1]) == pytest.approx(58, abs=18)
    assert np.median(ct[mask == 2]) == pytest.approx(48, abs=18)
    assert ct[mask == 4].mean() > 150
    assert np.median(ct[:5, :5]) == pytest.approx(-1000, abs=10)
    if "T2" in images:
        for kind, darker, brighter in (("T1", 2, 1), ("T2", 1, 2)):  # spleen against liver
            values = (
                _at(images[kind], images["mask"], darker),
                _at(images[kind], images["mask"], brighter),
            )
            assert np.median(values[0]) < np.median(values[1]), kind


def test_lesion_classes_differ_in_contrast() -> None:
    """Cysts have water's HU and shine on T2; tumors are between cyst and liver."""
    seen: dict[str, list[tuple[float, float]]] = {"cyst": [], "tumor": []}
    for index in range(30):
        exam = examine(0, index, ())
        big = [x for x in exam.patient.lesions if x.diameter_mm > 18]
        if not big or index % 8 == 5 or len(seen[big[0].kind]) == 2:
            continue
        images = simulate_patient(0, index)
        liver = images["mask"]
        ct = np.mean(_around(images["CT"], big[0].center)) - np.median(_at(images["CT"], liver, 1))
        t2 = np.mean(_around(images["T2"], big[0].center)) / np.median(_at(images["T2"], liver, 1))
        seen[big[0].kind].append((float(ct), float(t2)))
    assert all(len(found) == 2 for found in seen.values())
    for ct, t2 in seen["cyst"]:
        assert ct < -30
        assert t2 > 3
    for ct, t2 in seen["tumor"]:
        assert -42 < ct < -4
        assert 1.2 < t2 < 4.5
    assert min(t2 for _, t2 in seen["cyst"]) > max(t2 for _, t2 in seen["tumor"])


def _at(image: Volume, mask: Volume, label: int) -> Array:
    """Return the image at the inner voxels of a structure, looked up through world coordinates."""
    voxels = np.argwhere(mask.data[0] == label)
    world = mask.affine @ np.column_stack([voxels, np.ones(len(voxels))]).T
    index = np.rint(np.linalg.inv(image.affine) @ world)[:3].astype(int).T
    inside = ((index >= 0) & (index < image.shape)).all(axis=1)
    return image.data[0][tuple(index[inside].T)]


def _around(image: Volume, center: tuple[float, float, float]) -> Array:
    i, j, k = np.rint(np.linalg.inv(image.affine) @ np.append(center, 1))[:3].astype(int)
    return image.data[0, i - 1 : i + 2, j - 1 : j + 2, k]


# files


@pytest.mark.parametrize("index", range(CLEAN))
@pytest.mark.parametrize("kind", ["CT", "T1", "T2"])
def test_series_read_by_simpleitk_equal_the_simulation(
    clean: PhantomTruth, index: int, kind: str
) -> None:
    images = simulate_patient(0, index)
    assert (kind in images) == (kind in clean.patients[index].series)
    if kind not in images:
        return
    uid, folder = clean.patients[index].series[kind]
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(clean.data / folder), uid))
    image = reader.Execute()
    ours = images[kind]
    np.testing.assert_allclose(
        sitk.GetArrayFromImage(image).transpose(2, 1, 0), ours.data[0], atol=1e-3
    )
    for voxel in ((0, 0, 0), tuple(n - 1 for n in ours.shape), (7, 3, 5)):
        point = image.TransformIndexToPhysicalPoint(voxel)
        np.testing.assert_allclose(point, (LPS @ ours.affine @ (*voxel, 1))[:3], atol=1e-3)


@pytest.mark.parametrize("index", range(CLEAN))
def test_xray_read_by_pydicom_equals_the_simulation(clean: PhantomTruth, index: int) -> None:
    images = simulate_patient(0, index)
    if "DX" not in images:
        assert "DX" not in clean.patients[index].series
        return
    (path,) = _files(clean, index, "DX")
    header = pydicom.dcmread(path)
    pixels = header.pixel_array.astype(np.float32)
    if header.PhotometricInterpretation == "MONOCHROME1":
        pixels = 2**header.BitsStored - 1 - pixels
    np.testing.assert_array_equal(pixels.T, images["DX"].data[0, :, :, 0])
    spine, air = pixels[:, pixels.shape[1] // 2], pixels[:, :6]
    assert np.median(spine) > 3 * np.median(air)


@pytest.mark.parametrize("index", range(CLEAN))
def test_segmentation_read_by_highdicom_equals_the_mask(clean: PhantomTruth, index: int) -> None:
    import highdicom as hd

    (path,) = _files(clean, index, "SEG")
    seg = hd.seg.segread(path)
    labels = [seg.get_segment_description(n).segment_label for n in seg.segment_numbers]
    assert labels == ["liver", "spleen", "kidneys", "spine", "lesion"]
    headers = [pydicom.dcmread(p, stop_before_pixels=True) for p in _files(clean, index, "CT")]
    headers.sort(key=lambda header: float(header.ImagePositionPatient[2]))
    pixels = seg.get_pixels_by_source_instance(
        [header.SOPInstanceUID for header in headers],
        combine_segments=True,
        ignore_spatial_locations=False,
        assert_missing_frames_are_empty=True,
    )
    mask = simulate_patient(0, index)["mask"]
    np.testing.assert_array_equal(pixels.transpose(2, 1, 0), mask.data[0])
    assert seg.FrameOfReferenceUID == headers[0].FrameOfReferenceUID


def test_files_have_every_required_attribute(clean: PhantomTruth) -> None:
    """Type 1 present and filled, type 2 present, by highdicom's tables of the standard."""

    def tables(name: str) -> dict[str, list[dict[str, str]]]:
        content = pkgutil.get_data("highdicom", f"_standard/{name}.json")
        assert content is not None
        return json.loads(content)

    iods, modules = tables("iod_module_map"), tables("module_attribute_map")
    classes = tables("sop_class_iod_map")
    seen = Counter[str]()
    for path in sorted(clean.data.rglob("IM000001")):
        header = pydicom.dcmread(path)
        seen[header.SOPClassUID.name] += 1
        for module in iods[classes[header.SOPClassUID]]:  # type: ignore[index]  # a str
            if module["usage"] != "M":
                continue
            for attribute in modules[module["key"]]:
                keyword, kind = attribute["keyword"], attribute["type"]
                if attribute["path"] or kind not in "12":
                    continue
                assert keyword in header, (seen, keyword)
                assert kind == "2" or not header[keyword].is_empty, (seen, keyword)
        for element in header.iterall():
            if element.VR == "UI" and isinstance(element.value, str):
                assert pydicom.uid.UID(element.value).is_valid, element
    assert set(seen) == {
        "CT Image Storage",
        "MR Image Storage",
        "Segmentation Storage",
        "Computed Radiography Image Storage",
        "Digital X-Ray Image Storage - For Presentation",
    }


def test_identifiers_are_unique_and_everything_says_simulated(clean: PhantomTruth) -> None:
    instances = Counter[str]()
    syntaxes = set()
    for path in clean.data.rglob("IM*"):
        header = pydicom.dcmread(path, stop_before_pixels=True)
        instances[header.SOPInstanceUID] += 1
        assert header.file_meta.MediaStorageSOPInstanceUID == header.SOPInstanceUID
        assert "SIMULATED" in header.SeriesDescription
        assert str(header.PatientName).startswith("Phantom^")
        assert "PHANTOM" not in str(path.relative_to(clean.data)).upper()
        if header.Modality != "SEG":
            assert "SIMULATED" in header.ImageComments
            assert header.BurnedInAnnotation == "NO"
        syntaxes.add(header.file_meta.TransferSyntaxUID.name)
    assert set(instances.values()) == {1}
    assert len(syntaxes) >= 4


def test_same_arguments_same_bytes(clean: PhantomTruth, tmp_path: Path) -> None:
    again = write_phantom(tmp_path / "again", patients=CLEAN, seed=0, defects=False)
    assert _digests(again.out) == _digests(clean.out)
    assert again.patients == clean.patients
    other = write_phantom(tmp_path / "other", patients=1, seed=1, defects=False, modalities=("DX",))
    assert not set(_digests(other.data).values()) & set(_digests(clean.data).values())
    fewer = write_phantom(tmp_path / "ct", patients=1, seed=0, defects=False, modalities=("CT",))
    assert set(_digests(fewer.data).items()) < set(_digests(clean.data).items())


def test_finished_work_is_kept_and_other_work_replaced(tmp_path: Path) -> None:
    first = write_phantom(tmp_path, patients=1, seed=3, defects=False, modalities=("DX",))
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    same = write_phantom(tmp_path, patients=1, seed=3, defects=False, modalities=("DX",))
    assert same == first
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == stamps
    write_phantom(tmp_path, patients=1, seed=4, defects=False, modalities=("DX",))
    assert len(list((tmp_path / "dicom").rglob("IM*"))) == 1
    (tmp_path / "thesis.doc").write_text("do not touch")
    with pytest.raises(UsageError, match="other files"):
        write_phantom(tmp_path, patients=1, seed=5, defects=False)


def test_labels_and_truth(spoiled: PhantomTruth) -> None:
    rows = {row["patient"]: row for row in csv.DictReader(spoiled.labels.read_text().splitlines())}
    by_finding = {defect.finding: defect for defect in spoiled.defects}
    lost = by_finding["image-without-label"].patient_id
    stray = by_finding["label-without-image"].patient_id
    known = {patient.patient_id: patient for patient in spoiled.patients}
    assert set(rows) == set(known) - {lost} | {stray}
    for name in set(known) & set(rows):
        assert rows[name]["diagnosis"] == known[name].diagnosis
        assert int(rows[name]["age"]) == known[name].age
        assert rows[name]["words"].endswith(".")
    record = json.loads((spoiled.out / "truth.json").read_text())
    assert record["simulated"] is True
    assert len(record["defects"]) == len(spoiled.defects)


def test_mixture_of_diagnoses_and_hospitals() -> None:
    drawn = [assignment(7, n) for n in range(60)]
    assert Counter(diagnosis for diagnosis, _ in drawn) == {"none": 24, "cyst": 16, "tumor": 20}
    assert Counter(site for _, site in drawn) == {"A": 20, "B": 20, "C": 20}
    assert {diagnosis for diagnosis, _ in drawn} == set(DIAGNOSES)


# defects


def test_every_defect_is_planted_once(spoiled: PhantomTruth) -> None:
    assert Counter(defect.finding for defect in spoiled.defects) == {
        **{kind.finding: 1 for kind in KINDS},
        "label-without-image": 1,
        "image-without-label": 1,
    }
    for defect in spoiled.defects:
        assert all((spoiled.data / name).is_file() for name in defect.files)
    images = [d for d in spoiled.defects if d.series_uid]
    assert all(d.files for d in images)


def _defect(truth: PhantomTruth, finding: str) -> list[pydicom.FileDataset]:
    (defect,) = [d for d in truth.defects if d.finding == finding]
    return [pydicom.dcmread(truth.data / name) for name in defect.files]


def _positions(headers: list[pydicom.FileDataset]) -> Array:
    return np.array(sorted(float(h.ImagePositionPatient[2]) for h in headers))


def test_defects_of_geometry(spoiled: PhantomTruth) -> None:
    steps = np.diff(_positions(_defect(spoiled, "missing-slices")))
    assert np.isclose(steps, 2 * steps.min()).sum() == 1
    assert np.isclose(steps, steps.min()).sum() == len(steps) - 1
    steps = np.diff(_positions(_defect(spoiled, "uneven-spacing")))
    assert steps.max() == pytest.approx(1.45 * steps.min(), rel=1e-3)
    copied = [tuple(h.ImagePositionPatient) for h in _defect(spoiled, "duplicate-slices")]
    assert len(copied) - len(set(copied)) == 1
    headers = _defect(spoiled, "gantry-tilt")
    axes = np.array(headers[0].ImageOrientationPatient, float)
    step = np.subtract(headers[1].ImagePositionPatient, headers[0].ImagePositionPatient)
    cosine = abs(np.cross(axes[:3], axes[3:]) @ step) / np.linalg.norm(step)
    assert np.degrees(np.arccos(cosine)) == pytest.approx(14, abs=0.1)
    rows = Counter(
        round(float(h.ImageOrientationPatient[0]), 3)
        for h in _defect(spoiled, "orientation-contradiction")
    )
    assert rows == {1.0: 10, -1.0: 10}


def test_defects_of_values(spoiled: PhantomTruth) -> None:
    slopes = Counter(float(h.RescaleSlope) for h in _defect(spoiled, "uneven-slope"))
    (common, _), (odd, count) = slopes.most_common(2)
    assert (odd / common, count) == (2, 1)
    assert min(h.pixel_array.min() for h in _defect(spoiled, "not-hounsfield")) >= 0
    assert len({h.pixel_array.tobytes() for h in _defect(spoiled, "constant-image")}) == 1
    (clipped,) = _defect(spoiled, "clipping")
    assert (clipped.pixel_array == clipped.pixel_array.max()).mean() > 0.3
    (tiny,) = _defect(spoiled, "tiny-image")
    assert tiny.pixel_array.shape == (12, 12)
    (inverted,) = _defect(spoiled, "inverted-photometric")
    dark_air = np.median(inverted.pixel_array[:, :5]) < np.median(inverted.pixel_array)
    assert dark_air == (inverted.PhotometricInterpretation == "MONOCHROME1")
    broken = 0
    for header in _defect(spoiled, "truncated-pixel-data"):
        broken += len(header.PixelData) < header.Rows * header.Columns * 2
    assert broken == 1


def test_defects_of_identity(spoiled: PhantomTruth) -> None:
    assert len({h.PatientID for h in _defect(spoiled, "two-patients")}) == 2
    originals = {
        header.pixel_array.tobytes(): header.PatientID
        for truth in spoiled.patients
        if "DX" in truth.series
        for header in [pydicom.dcmread(next((spoiled.data / truth.series["DX"][1]).iterdir()))]
    }
    (copy,) = _defect(spoiled, "exact-duplicate")
    assert originals[copy.pixel_array.tobytes()] != copy.PatientID
    (near,) = _defect(spoiled, "near-duplicate-across-patients")
    shape = near.pixel_array.shape
    alike = [
        np.corrcoef(np.frombuffer(raw, near.pixel_array.dtype), near.pixel_array.ravel())[0, 1]
        for raw in originals
        if len(raw) == 2 * shape[0] * shape[1]
    ]
    assert near.pixel_array.tobytes() not in originals
    assert max(alike) > 0.99


def test_defects_of_masks(spoiled: PhantomTruth) -> None:
    (empty,) = _defect(spoiled, "empty-mask")
    assert not empty.pixel_array.any()
    (unknown,) = _defect(spoiled, "corrupt-file")
    named = {segment.SegmentNumber for segment in unknown.SegmentSequence}
    used = {
        frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        for frame in unknown.PerFrameFunctionalGroupsSequence
    }
    assert used - named == {6}
    (moved,) = _defect(spoiled, "mask-off-grid")
    owner = next(p for p in spoiled.patients if p.patient_id == moved.PatientID)
    headers = [
        pydicom.dcmread(path, stop_before_pixels=True)
        for path in (spoiled.data / owner.series["CT"][1]).iterdir()
    ]
    columns = {float(h.ImagePositionPatient[0]) for h in headers}
    frame = moved.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0]
    assert float(frame.ImagePositionPatient[0]) not in columns


# further exams and refusals


def test_new_exam_is_one_unseen_patient(tmp_path: Path) -> None:
    for _ in range(2):  # a second call replaces the first
        folder = new_exam(tmp_path / "exam", seed=2)
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in folder.iterdir()]
    assert len({h.SeriesInstanceUID for h in headers}) == 1
    assert {h.Modality for h in headers} == {"CT"}
    assert int(headers[0].PatientID.removeprefix("PHANTOM-")) >= 9000
    assert len(headers) > 20
    (folder / "other.txt").write_text("x")
    with pytest.raises(UsageError, match="other files"):
        new_exam(folder)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"patients": 0}, "1 to 9000"),
        ({"patients": 5}, "too few"),
        ({"modalities": ()}, "modalities"),
        ({"modalities": ("CT", "US")}, "modalities"),
    ],
)
def test_wrong_arguments(tmp_path: Path, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        write_phantom(tmp_path / "out", **arguments)  # type: ignore[arg-type]  # wrong on purpose
    assert not (tmp_path / "out").exists()
