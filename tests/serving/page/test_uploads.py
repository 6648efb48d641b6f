# SPDX-License-Identifier: Apache-2.0
"""Images that are no DICOM: looked at, answered, corrected, like all others."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hospital import answer_all, read_bytes

from vesalius import io
from vesalius.serving.worker import Answered
from vesalius.volume import LabelMap, Volume

AFFINE = np.array([[0.0, 0.0, 2.0, 4], [1.5, 0.0, 0.0, -7], [0.0, -1.0, 0.0, 9], [0, 0, 0, 1]])


def bright(run, exam, out, *, modality=""):
    """Answer for each image of the exam, in the order of names, as a segmenter does."""
    files = []
    for number, file in enumerate(sorted(exam.iterdir()), 1):
        volume = io.read(file)
        found = LabelMap((volume.data > 50).astype(np.uint8), volume.affine, names={1: "hot"})
        files.append(io.write(found, out / f"segmentation-{number}.nii.gz"))
    volumes = [{"hot": 1.0} for _ in files]
    return Answered((), {"task": "segment", "volumes_ml": volumes}, files)


@pytest.mark.parametrize("suffix", ["nii.gz", "mnc"])
def test_an_upload_is_seen_answered_and_corrected(state, browser, run, tmp_path, suffix):
    data = np.zeros((1, 5, 6, 7), np.int16)
    data[0, 2, 3, 4] = 100
    io.write(Volume(data, AFFINE), tmp_path / f"a.{suffix}")
    other = Volume(np.full((1, 4, 4, 4), 10, np.int16), np.eye(4))
    io.write(other, tmp_path / f"b.{suffix}")
    look = browser("send", "read", "review")
    raw = (tmp_path / f"a.{suffix}").read_bytes()
    (study,) = look.json("POST", "/api/upload?modality=CT", content=raw)["studies"]
    raw = (tmp_path / f"b.{suffix}").read_bytes()
    look.json("POST", f"/api/upload?modality=CT&study={study}", content=raw)
    answer_all(state, run(), bright)
    (result,) = look.json("GET", f"/api/studies/{study}/view")["results"]
    assert [one["label_map"] for one in result["objects"]] == [True, True]
    shapes = {}
    for one in result["objects"]:
        facts = look.json("GET", f"/api/studies/{study}/labels/{one['object']}")
        view = look.json("GET", f"/api/studies/{study}/series/{facts['series']}/view")
        shapes[one["object"]] = view["images"][0]["shape"]
        assert view["images"][0]["modality"] == "CT"
        if facts["volumes_ml"]["hot"]:
            marked = one["object"]
    held = io.read(tmp_path / f"a.{suffix}")
    assert sorted(shapes.values()) == sorted([list(held.shape), [4, 4, 4]])
    assert shapes[marked] == list(held.shape)
    sent = look("GET", f"/api/studies/{study}/labels/{marked}/0.nii.gz").content
    got = read_bytes(sent, tmp_path)
    np.testing.assert_array_equal(got.data, held.data > 50)
    mask = look.json("POST", f"/api/studies/{study}/labels/{marked}/masks", 201, content=sent)
    assert mask["changed_voxels"] == 0
    said = {"job": result["job"], "object": marked, "decision": "edit", "reasons": ["boundary"],
            "mask": mask["mask"]}  # fmt: skip
    done = look.json("POST", f"/api/studies/{study}/reviews", 201, json=said)
    assert (done["learned_images"], done["not_learned"]) == (1, "")
    assert len(list(state.folder.glob("corrections/hot/images/ct-*.nii.gz"))) == 1
    assert str(state.folder) not in json.dumps(done)
