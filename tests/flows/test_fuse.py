# SPDX-License-Identifier: Apache-2.0
"""Fusion of one patient: what is written, what is left out, and where the images end up."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vesalius import io
from vesalius.cohorts.phantom.exam import simulate_patient
from vesalius.errors import DataError, UsageError
from vesalius.flows.fuse import fuse
from vesalius.normalization.alignment.poses import pose
from vesalius.normalization.alignment.transform import Transform

SHIFT = np.array([12.0, -9, 6])


@pytest.fixture(scope="module")
def patient(tmp_path_factory) -> Path:
    """A folder of one patient: CT, a T1 that lies elsewhere, a T2, a mask, a blank, and clutter."""
    folder = tmp_path_factory.mktemp("Doe_Jane")
    images = simulate_patient(100, 0)
    io.write(images["CT"], folder / "doe_jane_CT.nii.gz")
    elsewhere = pose(np.zeros(3), SHIFT, np.zeros(3)) @ images["T1"].affine
    io.write(replace(images["T1"], affine=elsewhere), folder / "doe_jane_T1.nii.gz")
    io.write(images["T2"], folder / "doe_jane_T2.nrrd")
    io.write(images["mask"], folder / "doe_jane_liver.nii.gz")
    blank = images["T1"].with_data(np.zeros_like(images["T1"].data))
    io.write(blank, folder / "doe_jane_pet.nii.gz")
    (folder / "readme.txt").write_text("nothing to see")
    (folder / "ct_mask.nii.gz").write_bytes((folder / "doe_jane_CT.nii.gz").read_bytes())
    return folder


def test_all_modalities_come_onto_one_grid_with_transforms_and_pictures(patient, tmp_path) -> None:
    calls: list[tuple] = []
    fusion = fuse(patient, out=tmp_path, progress=lambda *call: calls.append(call))
    assert calls == [("register", n, 3) for n in (1, 2, 3)]
    verdicts = {member.name: member.verdict for member in fusion.members}
    assert verdicts == {
        "ct": "reference", "mr-t1": "passed", "mr-t2": "passed", "pt": "refused"
    }  # fmt: skip
    assert "constant" in fusion.members[-1].reason
    written = sorted(path.name for path in tmp_path.iterdir())
    assert written == sorted(
        ["ct.nii.gz", "fusion.json"]
        + [
            name.format(mr)
            for mr in ("mr-t1", "mr-t2")
            for name in ("{}.nii.gz", "{}-to-ct.json", "{}-to-ct.tfm", "{}-over-ct.png")
        ]
    )
    ct, t1 = io.read(tmp_path / "ct.nii.gz"), io.read(tmp_path / "mr-t1.nii.gz")
    assert t1.shape == ct.shape
    np.testing.assert_allclose(t1.affine, ct.affine, atol=1e-4)
    transform = Transform.from_json(json.loads((tmp_path / "mr-t1-to-ct.json").read_text()))
    mapped = transform.apply_to_points(np.array([[0.0, 0, 0], [50, 50, 50]]))
    np.testing.assert_allclose(mapped - [[0, 0, 0], [50, 50, 50]], [SHIFT] * 2, atol=4)
    record = (tmp_path / "fusion.json").read_text()
    assert "jane" not in record.lower()
    assert json.loads(record)["reference"] == "ct"
    assert any("label map" in note for note in fusion.notes)
    assert any("unsupported-format" in note for note in fusion.notes)
    assert "mr-t1: passed, rigid" in "\n".join(fusion.lines())


def test_reference_spacing_and_choice_of_modalities(patient, tmp_path) -> None:
    fusion = fuse(
        patient, modalities=("CT", "MR"), to="mr", spacing=8.0, kind="identity", out=tmp_path
    )
    assert [member.name for member in fusion.members] == ["mr-t1", "ct", "mr-t2"]
    assert fusion.spacing == pytest.approx((8, 8, 9), abs=1)
    assert io.read(tmp_path / "mr-t1.nii.gz").shape == fusion.shape
    assert all(member.transform.kind == "identity" for member in fusion.members[1:])


def test_wrong_calls_name_the_way_out(patient, tmp_path) -> None:
    with pytest.raises(UsageError, match="to must be one of"):
        fuse(patient, to="US", out=tmp_path)
    with pytest.raises(DataError, match="at least two images"):
        fuse(patient / "doe_jane_CT.nii.gz", out=tmp_path)
    with pytest.raises(UsageError, match="does not exist"):
        fuse(patient / "nobody", out=tmp_path)


def test_dicom_series_of_one_patient(tmp_path) -> None:
    from vesalius.cohorts.phantom import write_phantom

    truth = write_phantom(tmp_path / "phantom", patients=1, seed=100, defects=False)
    fusion = fuse(truth.data, out=tmp_path / "out", to="CT", kind="identity")
    assert {member.name for member in fusion.members} == {"ct", "mr", "mr-2"}
    assert all(member.verdict in ("reference", "passed") for member in fusion.members)
    assert any("single slice" in note for note in fusion.notes)
    assert "left out: a label map" in fusion.notes
    both = write_phantom(tmp_path / "two", patients=2, seed=100, defects=False)
    with pytest.raises(UsageError, match="belong to 2 patients"):
        fuse(both.data, out=tmp_path / "both")
    assert not (tmp_path / "both").exists()


@pytest.fixture
def small(tmp_path) -> Path:
    """A folder of one patient, quick to fuse as it is."""
    return _write(tmp_path / "small")


def _write(folder: Path, names: tuple[str, ...] = ("a_ct.nii", "a_mr_t1.nii")) -> Path:
    images = simulate_patient(100, 0)
    for name in names:
        io.write(images["CT" if "ct" in name else "T1"], folder / name)
    return folder


def _quick(patient: Path, out: Path, **more):
    return fuse(patient, **{"out": out, "kind": "identity", "spacing": 8.0, **more})


def _bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".png"}


@pytest.mark.parametrize("place", ["", "fused", "deep/er"])
def test_results_may_not_lie_among_the_patients_images(small, place: str) -> None:
    before = sorted(small.rglob("*"))
    with pytest.raises(UsageError, match="lies in the patient's folder"):
        _quick(small, small / place)
    assert sorted(small.rglob("*")) == before


def test_a_link_into_the_patients_folder_is_seen_through(small, tmp_path) -> None:
    (tmp_path / "link").symlink_to(small)
    with pytest.raises(UsageError, match="lies in the patient's folder"):
        _quick(small, tmp_path / "link" / "fused")


def test_out_must_be_a_folder(small, tmp_path) -> None:
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UsageError, match="out must be a folder"):
            _quick(small, out)
    assert (tmp_path / "file").read_text() == "mine"


def test_the_same_call_overwrites_its_own_results_another_is_refused(small, tmp_path) -> None:
    out = tmp_path / "out"
    fusion = _quick(small, out)
    first = _bytes(out)
    (out / "ct.nii.gz").write_bytes(b"broken")
    assert _quick(small, out, spacing=(8, 8, 8)).members[0].files == fusion.members[0].files
    assert _bytes(out) == first
    for changed, more in {
        "modalities": {"modalities": ("CT", "MR")},
        "to": {"to": "MR"},
        "spacing_mm": {"spacing": 9.0},
        "kind": {"kind": "rigid"},
        "trust_frame": {"trust_frame": False},
    }.items():
        with pytest.raises(UsageError, match=rf"another fusion \(different: {changed}\)"):
            _quick(small, out, **more)
    with pytest.raises(UsageError, match=r"another fusion \(different: inputs\)"):
        _quick(_write(tmp_path / "other"), out)  # files of the same names and sizes
    assert _bytes(out) == first
    (small / "a_mr_t1.nii").unlink()
    io.write(simulate_patient(100, 0)["T1"], small / "a_mr_t1.nii.gz")
    with pytest.raises(UsageError, match=r"another fusion \(different: inputs\)"):
        _quick(small, out)
    assert _bytes(out) == first


def test_an_interrupted_fusion_is_claimed_and_goes_on(small, tmp_path) -> None:
    def stop(*call) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        _quick(small, out, progress=stop)
    with pytest.raises(UsageError, match="another fusion"):
        _quick(small, out, to="MR")
    _quick(small, out)
    assert json.loads((out / "fusion.json").read_text())["reference"] == "ct"


@pytest.mark.parametrize("text", ["{}", "[]", "no json", '{"request": {"kind": "rigid"}}'])
def test_a_record_that_states_no_call_is_left_alone(small, tmp_path, text: str) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "fusion.json").write_text(text)
    with pytest.raises(UsageError, match="does not state what was asked"):
        _quick(small, out)
    assert [path.read_text() for path in out.iterdir()] == [text]


def test_a_wrong_argument_claims_nothing(small, tmp_path) -> None:
    out = tmp_path / "out"
    for more in ({"kind": "rigit"}, {"spacing": -1.0}, {"spacing": (1, 2)}):
        with pytest.raises(UsageError, match=next(iter(more))):
            _quick(small, out, **more)
    assert not out.exists()


@pytest.mark.parametrize("kind", ["rigid", "identity"])
def test_images_that_lie_apart_are_refused_with_both_ways_out(tmp_path, kind: str) -> None:
    images = simulate_patient(100, 0)
    io.write(images["CT"], tmp_path / "p" / "ct.nii")
    far = pose(np.zeros(3), np.array([900.0, 0, 0]), np.zeros(3)) @ images["T1"].affine
    io.write(replace(images["T1"], affine=far), tmp_path / "p" / "mr.nii")
    member = _quick(tmp_path / "p", tmp_path / "out", kind=kind).members[1]
    assert member.verdict == "refused"
    assert "--ignore-frame (in Python" in member.reason
    assert member.reason.count("trust_frame=False") == 1
    assert ("--kind rigid --ignore-frame" in member.reason) == (kind == "identity")


@pytest.mark.parametrize("above", ["", "only/one"])
def test_folders_of_several_patients_are_refused_by_count(tmp_path, above: str) -> None:
    root = tmp_path / "all"
    for name in ("jane", "john", "joan"):
        _write(root / above / name, (f"{name}_ct.nii",))
    _write(root / above / "joan", ("joan_t1w.nii",))
    with pytest.raises(UsageError, match="3 folders side by side each hold an image of CT") as said:
        _quick(root, tmp_path / "out")
    assert "give the folder of one" in str(said.value)
    assert not any(name in str(said.value) for name in ("jane", "john", "joan"))
    assert not (tmp_path / "out").exists()
    _quick(root / above / "joan", tmp_path / "out")


def test_folders_of_one_patients_sequences_are_one_patient(tmp_path) -> None:
    root = _write(tmp_path / "p" / "CT", ("ct.nii",)).parent
    _write(root / "T1", ("mr_t1w.nii",))
    _write(root / "T2", ("mr_t2.nii",))
    _write(root / "T2", ("ct_mask.nii",))  # no image, as the next two
    (root / "T2" / "ct_report.txt").write_text("nothing")
    (root / "T2" / "ct.pdf").write_bytes(b"%PDF-1.4")
    names = [member.name for member in _quick(root, tmp_path / "out").members]
    assert names == ["ct", "mr-t1w", "mr-t2"]


def test_a_sequence_in_two_folders_is_two_patients_or_sessions(tmp_path) -> None:
    for session, name in (("one", "mr_t1.nii"), ("two", "T1w.nii")):
        _write(tmp_path / "p" / session, (name,))
    with pytest.raises(UsageError, match="2 folders side by side each hold an image of MR T1,"):
        _quick(tmp_path / "p", tmp_path / "out")


@pytest.mark.slow
def test_ct_mr_and_pet_of_a_real_patient(data, tmp_path) -> None:
    fusion = fuse(data("sts") / "STS_008", out=tmp_path)
    assert [member.name for member in fusion.members] == ["ct", "mr-t1", "pt"]
    assert fusion.members[2].transform.kind == "identity"
    assert len(fusion.notes) == 3  # the masks
