# SPDX-License-Identifier: Apache-2.0
"""A folder of pictures is answered at once as each of them is alone."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vesalius import io
from vesalius.errors import DataError, UsageError
from vesalius.flows.predict import predict
from vesalius.flows.predicting.in_order import in_order
from vesalius.flows.scan import scan
from vesalius.flows.train import train

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is first imported


@pytest.fixture(scope="module")
def discs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a few steps on 12 pictures of discs, and a folder `exam` of five others."""
    root = tmp_path_factory.mktemp("discs")
    rng = np.random.default_rng(0)
    for number in range(17):
        index = np.stack(np.meshgrid(np.arange(40), np.arange(36), indexing="ij"), -1)
        mask = np.linalg.norm(index - rng.uniform(12, 24, 2), axis=-1) < 8
        pixels = (90 + 80 * mask + rng.normal(0, 10, mask.shape)).clip(0, 255)
        if number < 12:
            for folder, data in (("images", pixels), ("labels", mask)):
                (root / "data" / folder).mkdir(parents=True, exist_ok=True)
                Image.fromarray(data.astype(np.uint8)).save(
                    root / "data" / folder / f"{number:02}.png"
                )
        else:
            folder = root / "exam" / ("more" if number > 14 else "")
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"Ada.{number}.png")
    scan(root / "data", out=root / "cohort", workers=1)
    train("segment", root / "cohort", steps=8, out=root / "run")
    return root


@pytest.mark.parametrize("threads", [1, 3])
def test_each_picture_is_answered_as_alone(
    discs: Path, tmp_path: Path, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    said: list[str] = []
    found = predict(discs / "run", discs / "exam", out=tmp_path / "all", say=said.append)
    pictures = sorted((discs / "exam").rglob("*.png"))
    assert [path.name for path in found.files] == [f"segmentation-{n}.nii.gz" for n in range(1, 6)]
    assert [line.split(":")[0] for line in said] == [f"image {n}" for n in range(1, 6)]
    masks = [io.read_labels(path) for path in found.files]
    assert len({mask.data.tobytes() for mask in masks}) == 5
    for place, picture in enumerate(pictures):
        alone = predict(discs / "run", picture, out=tmp_path / picture.stem)
        assert (io.read_labels(alone.files[0]).data == masks[place].data).all()
        assert alone.volumes_ml[0] == found.volumes_ml[place]
        assert alone.expected_dice[0] == pytest.approx(found.expected_dice[place], abs=1e-6)


def test_names_are_kept_only_where_asked_for(discs: Path, tmp_path: Path) -> None:
    plain = predict(discs / "run", discs / "exam", out=tmp_path / "plain")
    assert "Ada" not in "".join(str(path) for path in (tmp_path / "plain").rglob("*"))
    assert "Ada" not in (tmp_path / "plain" / "prediction.json").read_text()
    named = predict(discs / "run", discs / "exam", out=tmp_path / "named", keep_names=True)
    files = [str(path.relative_to(tmp_path / "named")) for path in named.files]
    assert files == ["Ada.12.nii.gz", "Ada.13.nii.gz", "Ada.14.nii.gz", "more/Ada.15.nii.gz",
                     "more/Ada.16.nii.gz"]  # fmt: skip
    assert json.loads((tmp_path / "named" / "prediction.json").read_text())["files"] == files
    for one, other in zip(plain.files, named.files, strict=True):
        assert (io.read_labels(one).data == io.read_labels(other).data).all()
    assert (tmp_path / "named" / "more" / "Ada.16.jpg").exists()


def test_two_files_of_one_name_do_not_overwrite_each_other(discs: Path, tmp_path: Path) -> None:
    exam = tmp_path / "exam"
    exam.mkdir()
    picture = Image.open(discs / "exam" / "Ada.12.png")
    picture.save(exam / "a.png")
    picture.rotate(180).save(exam / "a.bmp")
    found = predict(discs / "run", exam, out=tmp_path / "out", keep_names=True)
    assert [path.name for path in found.files] == ["a.nii.gz", "a-2.nii.gz"]


def test_what_cannot_be_read_is_left_out_and_said(discs: Path, tmp_path: Path) -> None:
    exam = tmp_path / "exam"
    exam.mkdir()
    (exam / "Ada.png").write_bytes((discs / "exam" / "Ada.12.png").read_bytes()[:100])
    (exam / ".hidden").write_text("no image")
    (exam / "notes.txt").write_text("no image")
    with pytest.raises(DataError, match="no image of the exam can be segmented: file 1 of 2"):
        predict(discs / "run", exam, out=tmp_path / "out")
    Image.open(discs / "exam" / "Ada.13.png").save(exam / "b.png")
    found = predict(discs / "run", exam, out=tmp_path / "out")
    assert len(found.files) == 1
    assert [note[:25] for note in found.notes[:2]] == [
        "file 1 of 3 left out: the", "file 3 of 3 left out: tex",
    ]  # fmt: skip
    assert not any("Ada" in note for note in found.notes)


def test_results_among_the_images_are_refused(discs: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="holds no file"):
        predict(discs / "run", tmp_path / "empty", out=tmp_path / "out")
    Image.open(discs / "exam" / "Ada.13.png").save(tmp_path / "b.png")
    with pytest.raises(UsageError, match="choose an --out outside it"):
        predict(discs / "run", tmp_path, out=tmp_path / "out")


def test_work_is_side_by_side_and_its_answers_in_order() -> None:
    together, most = 0, 0
    lock = threading.Lock()

    def work(number: int) -> int:
        nonlocal together, most
        with lock:
            together += 1
            most = max(most, together)
        time.sleep(0.02 if number % 3 == 0 else 0.001)
        with lock:
            together -= 1
        if number == 99:
            raise DataError("no")
        return -number

    taken: list[int] = []

    def items(count: int):
        for number in range(count):
            taken.append(number)
            yield number

    found = []
    for answer in in_order(work, items(12), workers=3):
        found.append(answer)
        assert len(taken) <= len(found) + 3  # few are taken ahead
    assert found == [-n for n in range(12)]
    assert 1 < most <= 3
    assert list(in_order(work, [5], workers=3)) == [-5]
    assert list(in_order(work, [], workers=3)) == []
    with pytest.raises(DataError, match="no"):
        list(in_order(work, [1, 99, 2, 4], workers=2))
