# SPDX-License-Identifier: Apache-2.0
"""What the viewer loads: images and label maps on the source's grid, kept, and gone in time."""

from __future__ import annotations

import json
import os
import time

import numpy as np
import pytest
from hospital import COLUMNS, ROWS, SLICES, answer_all, read_bytes, send_series

from vesalius import io
from vesalius.errors import BudgetError, DataError, RunError, UsageError
from vesalius.serving.page import images as views
from vesalius.serving.page.aside import Aside
from vesalius.serving.page.convert import convert_images
from vesalius.serving.store import path_of
from vesalius.volume import Volume


def source(state):
    rows = state.connection().execute(
        "SELECT folder, sha256 FROM instances WHERE origin != 'result'"
    )
    return io.read([path_of(state, folder, sha256) for folder, sha256 in rows])


def test_an_image_has_its_values_and_its_place(state, segmented, browser, tmp_path):
    look = browser("read")
    facts = look.json("GET", "/api/studies/1.2.3/series/1.2.3.1/view")
    (image,) = facts["images"]
    held = source(state)
    assert image["shape"] == [COLUMNS, ROWS, SLICES]
    assert image["modality"] == "CT"
    assert image["unit"] == held.unit
    np.testing.assert_allclose(image["affine"], held.affine, atol=1e-6)
    raw = look("GET", "/api/studies/1.2.3/series/1.2.3.1/view/0.nii.gz")
    assert "content-encoding" not in raw.headers
    got = read_bytes(raw.content, tmp_path)
    np.testing.assert_array_equal(got.data, held.data)
    np.testing.assert_allclose(got.affine, held.affine, atol=1e-3)
    assert look("GET", "/api/studies/1.2.3/series/1.2.3.1/view/1.nii.gz").status_code == 404
    assert look("GET", "/api/studies/1.2.3/series/1.2.3.7/view").status_code == 404


def test_a_label_map_lies_on_its_image(state, segmented, browser, tmp_path):
    look, (_, sop) = browser("read"), segmented
    facts = look.json("GET", f"/api/studies/1.2.3/labels/{sop}")
    assert facts["names"] == {"1": "lesion", "2": "vessel"}
    assert (facts["series"], facts["image"], facts["layers"]) == ("1.2.3.1", 0, 1)
    held = source(state)
    bright = held.data > 100
    ml = bright.sum() * np.prod(held.spacing) / 1000
    assert sum(facts["volumes_ml"].values()) == pytest.approx(ml, rel=1e-4)
    got = read_bytes(look("GET", f"/api/studies/1.2.3/labels/{sop}/0.nii.gz").content, tmp_path)
    np.testing.assert_array_equal(got.data > 0, bright)
    np.testing.assert_allclose(got.affine, held.affine, atol=1e-3)
    assert got.names == {1: "lesion", 2: "vessel"}


def test_views_are_made_once_anew_with_more_and_go_with_their_study(
    state, segmented, desk, send, monkeypatch
):
    first = desk.images.of_series("1.2.3", "1.2.3.1")
    monkeypatch.setattr(views.convert, "convert_images", None)
    assert desk.images.of_series("1.2.3", "1.2.3.1").folder == first.folder
    monkeypatch.undo()
    send(1, study="1.2.3", series="1.2.3.1", SOPInstanceUID="1.2.3.1.99", Rows=ROWS,
         Columns=COLUMNS, InstanceNumber=7, PixelData=bytes(2 * ROWS * COLUMNS))  # fmt: skip
    more = desk.images.of_series("1.2.3", "1.2.3.1")
    assert more.folder != first.folder
    assert sum(len(one["files"]) for one in more.facts["images"]) == SLICES + 1
    assert first.folder.is_dir()
    with state.transaction() as connection:
        connection.execute("DELETE FROM studies")
    assert desk.images.tidy() == 1
    assert not first.folder.exists()


def test_the_oldest_views_make_room(state, send, desk, monkeypatch):
    for study in ("1.2.3", "1.2.4"):
        send_series(send, study=study)
    old = desk.images.of_series("1.2.3", "1.2.3.1")
    os.utime(old.folder / "facts.json", (1, 1))
    monkeypatch.setattr(views, "MOST_KEPT", 1)
    new = desk.images.of_series("1.2.4", "1.2.4.1")
    assert new.file(0).is_file()
    assert not old.folder.exists()


def test_a_full_disk_makes_no_view(state, send, desk, monkeypatch):
    send_series(send)
    monkeypatch.setattr(state, "free_bytes", lambda: 0)
    with pytest.raises(BudgetError, match="too full"):
        desk.images.of_series("1.2.3", "1.2.3.1")


def test_color_stays_color(tmp_path):
    rng = np.random.default_rng(0)
    data = rng.integers(0, 255, (3, 5, 4, 1), dtype=np.uint8)
    picture = Volume(data, np.diag([-1.0, -1, 1, 1]), channels=("red", "green", "blue"))
    io.write(picture, tmp_path / "picture.png")
    (facts,) = convert_images([str(tmp_path / "picture.png")], str(tmp_path / "out"))["images"]
    assert facts["color"]
    assert facts["plane"] == "axial"
    got = io.read(tmp_path / "out" / "0.nii.gz")
    np.testing.assert_array_equal(got.data, data)


def test_minc_becomes_nifti(tmp_path):
    data = np.arange(60, dtype=np.int16).reshape(1, 3, 4, 5)
    affine = np.array([[2.0, 0, 0, 5], [0, 0, 3, -7], [0, -1, 0, 2], [0, 0, 0, 1]])
    io.write(Volume(data, affine), tmp_path / "a.mnc")
    convert_images([str(tmp_path / "a.mnc")], str(tmp_path / "out"))
    got, held = io.read(tmp_path / "out" / "0.nii.gz"), io.read(tmp_path / "a.mnc")
    np.testing.assert_allclose(got.data, held.data, atol=1e-3)
    np.testing.assert_allclose(got.affine, held.affine, atol=1e-4)


@pytest.mark.slow
def test_what_kills_its_process_kills_nothing_else():
    aside = Aside(seconds=30, idle_seconds=0.2)
    try:
        assert aside.call(os.getpid) != os.getpid()
        with pytest.raises(BudgetError, match="stopped"):
            aside.call(os._exit, 9)
        with pytest.raises(UsageError, match="is empty"):
            aside.call(convert_images, [], "nowhere")
        with pytest.raises(RunError, match="ValueError") as error:
            aside.call(int, "a patient's name")
        assert "patient" not in str(error.value)
        time.sleep(1.0)  # idle: it ends, and comes back when it is needed
        assert aside.call(len, "abc") == 3
    finally:
        aside.close()


@pytest.mark.slow
def test_what_never_ends_is_stopped():
    aside = Aside(seconds=1.0)
    try:
        with pytest.raises(BudgetError, match="longer"):
            aside.call(time.sleep, 600)
    finally:
        aside.close()


def test_the_list_tells_what_is_urgent(state, send, run, browser):
    look = browser("read")
    send_series(send, study="1.2.4", patient="P-2")
    assert look.json("GET", "/api/worklist")["studies"][0]["state"] == "receiving"
    answer_all(state, run("classify"), lambda *_: (_ for _ in ()).throw(DataError("a gap")))
    found = look.json("GET", "/api/worklist?only=refused&words=p-2")
    assert [one["study"] for one in found["studies"]] == ["1.2.4"]
    assert found["counts"]["refused"] == found["matched"] == 1
    assert look.json("GET", "/api/worklist?words=nobody")["studies"] == []
    (result,) = look.json("GET", "/api/studies/1.2.4/view")["results"]
    assert (result["state"], result["reason"]) == ("refused", "a gap")
    assert look("GET", "/api/worklist?only=x").status_code == 400
    assert look("GET", "/api/studies/9.9/view").status_code == 404


def test_a_study_tells_its_results(segmented, browser):
    found = browser("read").json("GET", "/api/studies/1.2.3/view")
    assert [one["series"] for one in found["series"]] == ["1.2.3.1"]
    (result,) = found["results"]
    assert result["answer"]["expected_dice"] == [{"lesion": 0.9, "vessel": 0.4}]
    assert result["objects"] == [{"object": segmented[1], "kind": "SEG", "label_map": True}]
    assert "run-segment" not in json.dumps(found)  # no path
