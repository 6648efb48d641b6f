# SPDX-License-Identifier: Apache-2.0
"""Every layout in one data root, scanned once; what each row must hold is known by construction."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from vesalius.cohorts import Cohort
from vesalius.cohorts.layouts.classes import find as find_classes
from vesalius.cohorts.layouts.names import leading_id, names_tell_patients
from vesalius.cohorts.layouts.nnunet import label_names
from vesalius.cohorts.layouts.voc import read_voc
from vesalius.cohorts.scan import scan
from vesalius.errors import CorruptFile, LimitExceeded

_RNG = np.random.default_rng(7)


def png(path: Path, values: np.ndarray | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if values is None:
        values = _RNG.integers(0, 255, (24, 20)).astype(np.uint8)
    Image.fromarray(values).save(path)


def nifti(path: Path, values: np.ndarray | None = None, affine: np.ndarray | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if values is None:
        values = _RNG.integers(0, 900, (9, 8, 7)).astype(np.int16)
    affine = np.diag([1.0, 2.0, 3.0, 1.0]) if affine is None else affine
    nibabel.save(nibabel.Nifti1Image(values, affine), path)


def mask(shape: tuple[int, ...] = (9, 8, 7), value: int = 1) -> np.ndarray:
    found = np.zeros(shape, np.uint8)
    found[2:5, 2:5] = value
    return found


def write_everything(root: Path) -> None:
    bids = root / "bids"
    nifti(bids / "sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz")
    nifti(bids / "sub-01/ses-a/anat/sub-01_ses-a_T2w.nii.gz")
    nifti(bids / "sub-02/anat/sub-02_FLAIR.nii.gz")
    nifti(bids / "derivatives/hand/sub-01/ses-a/anat/sub-01_ses-a_label-lesion_mask.nii.gz", mask())
    (bids / "sub-02/anat/sub-02_FLAIR.json").write_text(
        '{"Manufacturer": "Siemens", "ManufacturersModelName": "Skyra"}'
    )
    (bids / "dataset_description.json").write_text('{"BIDSVersion": "1.8.0", "License": "CC0"}')

    nnunet = root / "Dataset001_Test"
    for case in ("a_1", "b_2"):
        nifti(nnunet / f"imagesTr/{case}_0000.nii.gz")
        nifti(nnunet / f"imagesTr/{case}_0001.nii.gz")
        nifti(nnunet / f"labelsTr/{case}.nii.gz", mask(value=2))
    nifti(nnunet / "imagesTs/c_3_0000.nii.gz")
    nifti(nnunet / "imagesTs/c_3_0001.nii.gz")
    nifti(nnunet / "labelsTr/lost.nii.gz", mask())
    (nnunet / "dataset.json").write_text(
        json.dumps(
            {
                "channel_names": {"0": "T1", "1": "T2"},
                "labels": {"background": 0, "edema": 1, "tumor": 2},
                "file_ending": ".nii.gz",
                "numTraining": 2,
            }
        )
    )

    msd = root / "Task99"
    nifti(msd / "imagesTr/x_1.nii.gz")
    nifti(msd / "labelsTr/x_1.nii.gz", mask())
    nifti(msd / "imagesTs/x_2.nii.gz")
    (msd / "dataset.json").write_text(
        json.dumps(
            {
                "modality": {"0": "CT"},
                "labels": {"0": "background", "1": "spleen"},
                "training": [{"image": "./imagesTr/x_1.nii.gz", "label": "./labelsTr/x_1.nii.gz"}],
                "test": ["./imagesTs/x_2.nii.gz"],
                "licence": "CC-BY-SA 4.0",
            }
        )
    )

    for split in ("train", "test"):
        for name in ("benign", "malignant"):
            for n in range(3):
                png(root / f"classes/{split}/{name}/{split[:2]}{name[:2]}{n}.png")

    for patient in ("PA-01", "PA-02", "PB-03"):
        for n in range(3):
            png(root / f"pairs/images/{patient}-slice-{n}.png")
            png(root / f"pairs/labels/{patient}-slice-{n}.png", mask((24, 20), 255))
    png(root / "pairs/labels/nobody.png", mask((24, 20)))

    for n in range(4):
        png(root / f"voc/JPEGImages/im_{n}.png")
        (root / "voc/Annotations").mkdir(parents=True, exist_ok=True)
        (root / f"voc/Annotations/im_{n}.xml").write_text(
            f"<annotation><filename>im_{n}.png</filename><object><name>cell</name><bndbox>"
            f"<xmin>{n}</xmin><ymin>2</ymin><xmax>9</xmax><ymax>8</ymax></bndbox></object></annotation>"
        )
    (root / "voc/splits").mkdir()
    (root / "voc/splits/train.txt").write_text("im_0\nim_1\n")
    (root / "voc/splits/val.txt").write_text("im_2\n")
    (root / "voc/splits/trainval.txt").write_text("im_0\nim_1\nim_2\n")
    (root / "voc/splits/test.txt").write_text("im_3\n")

    png(root / "coco/photos/one.png")
    png(root / "coco/photos/two.png")
    (root / "coco/instances.json").write_text(
        json.dumps(
            {
                "images": [
                    {"id": 1, "file_name": "photos/one.png"},
                    {"id": 2, "file_name": "photos/two.png"},
                ],
                "annotations": [{"image_id": 1, "category_id": 5, "bbox": [1, 2, 3, 4]}],
                "categories": [{"id": 5, "name": "nodule"}],
            }
        )
    )

    np.savez(
        root / "smallmnist.npz",
        train_images=_RNG.integers(0, 255, (3, 28, 28)).astype(np.uint8),
        train_labels=np.array([[0], [1], [2]]),
        test_images=_RNG.integers(0, 255, (2, 28, 28)).astype(np.uint8),
        test_labels=np.array([[2], [0]]),
    )

    for patient in ("ST_003", "ST_008"):
        nifti(root / f"loose/{patient}/CT_image.nii.gz")
        nifti(root / f"loose/{patient}/CT_mask.nii.gz", mask())
        nifti(root / f"loose/{patient}/PET_image.nii.gz")

    for n in range(3):
        png(root / f"table/pics/z{n}.png")
    (root / "table/list.csv").write_text(
        "file,finding,caption,subset\n"
        "pics/z0.png,effusion,A small effusion is seen on the left side.,train\n"
        "pics/z1.png,none,No finding at all in this normal image.,train\n"
        "pics/z2.png,effusion,A large effusion is seen on the right.,dev\n"
    )
    (root / "LICENSE.txt").write_text("MIT License\n\nPermission is hereby granted")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    work = tmp_path_factory.mktemp("layouts")
    write_everything(work / "data")
    scan(work / "data", work / "cohort", workers=1)
    return Cohort.open(work / "cohort")


@pytest.fixture(scope="module")
def rows(cohort: Cohort) -> pd.DataFrame:
    frame = cohort.to_pandas()
    frame["file"] = [files[0] for files in frame["files"]]
    return frame


def of(rows: pd.DataFrame, start: str) -> pd.DataFrame:
    found = rows[rows["file"].str.startswith(start)].sort_values(["file", "member"])
    assert len(found), f"no row below {start}"
    return found


def test_bids_gives_subject_session_modality_scanner_and_mask(rows: pd.DataFrame) -> None:
    found = of(rows, "bids/").set_index("file")
    assert len(found) == 3
    one = found.loc["bids/sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz"]
    two = found.loc["bids/sub-01/ses-a/anat/sub-01_ses-a_T2w.nii.gz"]
    other = found.loc["bids/sub-02/anat/sub-02_FLAIR.nii.gz"]
    assert one.patient == two.patient != other.patient
    assert one.study == two.study != ""
    assert {one.patient_source, other.patient_source} == {"path"}
    assert set(found.modality) == {"MR"}
    assert next(iter(one.mask_files)).endswith("label-lesion_mask.nii.gz")
    assert len(two.mask_files) == 0  # it is drawn on the T1w
    assert other.scanner == "Siemens|Skyra"


def test_nnunet_case_is_one_row_with_its_channels_in_order(
    rows: pd.DataFrame, cohort: Cohort
) -> None:
    found = of(rows, "Dataset001_Test/")
    assert list(found.iloc[0].files) == [
        "Dataset001_Test/imagesTr/a_1_0000.nii.gz",
        "Dataset001_Test/imagesTr/a_1_0001.nii.gz",
    ]
    assert [list(shape) for shape in found["shape"]] == [[2, 9, 8, 7]] * 3
    assert list(found["mask_files"].map(len)) == [1, 1, 0]
    assert json.loads(found.iloc[0].mask_names) == {"1": "edema", "2": "tumor"}
    assert found.iloc[2].split == "test"
    assert found.iloc[:2].split.isna().all()  # the test cases have no labels
    assert set(found.modality) == {"MR"}
    row = cohort.row(found.iloc[0]["key"])
    volume = cohort.read(row)
    first = nibabel.load(cohort.roots[row["root"]] / row["files"][0])
    second = nibabel.load(cohort.roots[row["root"]] / row["files"][1])
    assert (volume.data[0] == np.asarray(first.dataobj)).all()
    assert (volume.data[1] == np.asarray(second.dataobj)).all()
    assert cohort.read_mask(row).names == {1: "edema", 2: "tumor"}


def test_mask_without_image_is_found(cohort: Cohort) -> None:
    findings = cohort.findings()
    lost = set(findings[findings["name"] == "mask-without-image"]["file"])
    assert lost == {"Dataset001_Test/labelsTr/lost.nii.gz", "pairs/labels/nobody.png"}


def test_decathlon_follows_its_lists(rows: pd.DataFrame) -> None:
    found = of(rows, "Task99/")
    assert list(found["file"]) == ["Task99/imagesTr/x_1.nii.gz", "Task99/imagesTs/x_2.nii.gz"]
    assert list(found["modality"]) == ["CT", "CT"]
    assert json.loads(found.iloc[0].mask_names) == {"1": "spleen"}
    assert found.iloc[1].split == "test"


def test_class_folders_give_label_and_split(rows: pd.DataFrame) -> None:
    found = of(rows, "classes/")
    assert list(found["label_class"]) == [file.split("/")[2] for file in found["file"]]
    assert list(found["split"]) == [file.split("/")[1] for file in found["file"]]
    assert rows[~rows["file"].str.startswith("classes/")]["label_class"].isna().all()


def test_pairs_by_stem_with_patients_from_names(rows: pd.DataFrame) -> None:
    found = of(rows, "pairs/")
    assert len(found) == 9
    assert [list(m) for m in found["mask_files"]] == [
        [file.replace("images", "labels")] for file in found["file"]
    ]
    groups = found.groupby("patient")["file"].agg(lambda f: {one[13:18] for one in f})
    assert sorted(map(sorted, groups)) == [["PA-01"], ["PA-02"], ["PB-03"]]
    assert set(found["patient_source"]) == {"path"}
    assert json.loads(found.iloc[0].mask_names) == {"255": "label 255"}


def test_voc_boxes_and_split_lists(rows: pd.DataFrame) -> None:
    found = of(rows, "voc/")
    assert [json.loads(boxes) for boxes in found["boxes"]] == [
        [{"name": "cell", "x0": n, "y0": 2.0, "x1": 9.0, "y1": 8.0}] for n in range(4)
    ]
    assert list(found["split"]) == ["train", "train", "val", "test"]
    assert found["patient"].nunique() == 4  # counters name no patient
    assert set(found["patient_source"]) == {"none"}


def test_coco_boxes(rows: pd.DataFrame) -> None:
    found = of(rows, "coco/")
    assert json.loads(found.iloc[0].boxes) == [
        {"name": "nodule", "x0": 1.0, "y0": 2.0, "x1": 4.0, "y1": 6.0}
    ]
    assert json.loads(found.iloc[1].boxes) == []


def test_npz_members_splits_and_labels(rows: pd.DataFrame, cohort: Cohort) -> None:
    found = of(rows, "smallmnist.npz")
    assert list(found["member"]) == [
        "test_images[0]", "test_images[1]",
        "train_images[0]", "train_images[1]", "train_images[2]",
    ]  # fmt: skip
    assert list(found["label_label"]) == [2, 0, 0, 1, 2]
    assert list(found["split"]) == ["test"] * 2 + ["train"] * 3
    assert found["patient"].nunique() == 5
    row = cohort.row(found.iloc[3]["key"])
    with np.load(cohort.roots[row["root"]] / "smallmnist.npz") as arrays:
        assert (arrays["train_images"][1] == cohort.read(row).data[0, :, :, 0].T).all()


def test_loose_masks_modalities_and_patient_folders(rows: pd.DataFrame) -> None:
    found = of(rows, "loose/")
    assert list(found["modality"]) == ["CT", "PT", "CT", "PT"]
    assert list(found["mask_files"].map(len)) == [1, 0, 1, 0]
    assert list(found["patient"])[:2] == [found.iloc[0].patient] * 2
    assert found["patient"].nunique() == 2


def test_table_among_the_data_is_joined(rows: pd.DataFrame) -> None:
    found = of(rows, "table/")
    assert list(found["label_finding"]) == ["effusion", "none", "effusion"]
    assert found.iloc[0].words == "A small effusion is seen on the left side."
    assert list(found["split"]) == ["train", "train", "test"]  # dev is all that is held out


def test_licenses_are_recorded_as_stated(cohort: Cohort) -> None:
    assert set(cohort.license.split("; ")) == {"CC0", "CC-BY-SA 4.0"}


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("SC-HF-I-10-IM-0034-0048.dcm.png", "SC-HF-I-10"),
        ("SC-N-02-IM-0898-0060.png", "SC-N-02"),
        ("MPX1007_synpic46719.jpg", "MPX1007"),
        ("00000001_000.png", "00000001"),
        ("TCGA-CS-4941_19960909_12.tif", "TCGA-CS-4941"),
        ("T1_patient7_slice3.nii.gz", "T1_patient7"),
        ("hippocampus_001.nii.gz", ""),
        ("image_001_left.png", ""),
        ("scan.png", ""),
    ],
)
def test_leading_id(name: str, wanted: str) -> None:
    assert leading_id(name) == wanted


def test_names_tell_patients_only_when_shared() -> None:
    assert names_tell_patients([f"p{n // 3}_{n}.png" for n in range(12)])
    assert not names_tell_patients([f"p{n}_x.png" for n in range(12)])  # each its own
    assert not names_tell_patients([f"p1_{n}.png" for n in range(12)])  # one for all
    assert not names_tell_patients([f"hippocampus_{n:03d}.nii.gz" for n in range(12)])


class FakeCatalog:
    """Folders with file names, as much as the rule for classes asks."""

    def __init__(self, folders: dict[str, list[str]]) -> None:
        self._names = folders
        self.folders = {folder: len(names) for folder, names in folders.items()}

    def sample(self, folder: str) -> list[str]:
        return self._names[folder]


@pytest.mark.parametrize(
    ("folders", "are_classes"),
    [
        ({"a/normal": ["1.png", "2.png"], "a/covid": ["3.png", "4.png"]}, True),
        ({f"a/{g}": [f"{g}{n}.png" for n in range(12)] for g in range(5)}, True),
        ({f"a/grade{g}": [f"{g}{n}.png" for n in range(12)] for g in range(5)}, True),
        ({f"STS_{n:03d}": ["CT.nii", "PET.nii"] for n in range(8)}, False),
        ({f"patient{n}": [f"{n}_{m}.png" for m in range(30)] for n in range(8)}, False),
        ({"CT": ["a.png", "b.png"], "MR": ["c.png", "d.png"]}, False),
        ({"images": ["a.png", "b.png"], "labels": ["a.png", "b.png"]}, False),
        ({"x": ["a.png", "b.png", "c.png"], "y": ["a.png", "b.png", "c.png"]}, False),
        ({"shots": ["a.png", "b.png"], "vol": ["c.nii", "d.nii"]}, False),
    ],
)
def test_what_counts_as_class_folders(folders: dict[str, list[str]], are_classes: bool) -> None:
    assert bool(find_classes(FakeCatalog(folders))) == are_classes  # type: ignore[arg-type]  # as much as is asked


def test_label_names_of_both_spellings_and_regions() -> None:
    assert label_names({"background": 0, "whole": [1, 2], "core": [2], "edema": 1}) == {
        "1": "edema",
        "2": "whole",
    }
    assert label_names({"0": "background", "1": "spleen"}) == {"1": "spleen"}
    assert label_names("nonsense") == {}


def test_voc_refuses_declarations_depth_and_broken_boxes(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_text('<!DOCTYPE a [<!ENTITY b "c">]><annotation>&b;</annotation>')
    with pytest.raises(CorruptFile, match="declaration"):
        read_voc(path)
    path.write_text("<annotation>" * 40)
    with pytest.raises(LimitExceeded):
        read_voc(path)
    path.write_text("<annotation><object><name>x</name></object></annotation>")
    with pytest.raises(CorruptFile, match="lacks"):
        read_voc(path)
    path.write_text("<html></html>")
    assert read_voc(path) is None
