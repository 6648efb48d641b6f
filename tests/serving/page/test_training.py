# SPDX-License-Identifier: Apache-2.0
"""From a stroke on the page to a run: corrections are scanned and trained on as they are."""

from __future__ import annotations

import json

import numpy as np
from hospital import answer_all, boxes, read_bytes, send_series

import vesalius as vs
from vesalius import io
from vesalius.volume import LabelMap


def test_what_was_corrected_is_trained_on(state, send, run, browser, tmp_path):
    for number in range(6):
        send_series(send, study=f"1.2.{number}", patient=f"P-{number}", oblique=False)
    answer_all(state, run(), boxes)
    look = browser().log_in()
    rows = state.connection().execute("SELECT study_uid, id, answer FROM jobs").fetchall()
    for number, (study, job, answer) in enumerate(rows):
        (sop,) = json.loads(answer)["objects"]
        raw = look("GET", f"/api/studies/{study}/labels/{sop}/0.nii.gz").content
        mask = read_bytes(raw, tmp_path)
        data = np.array(mask.data)
        data[0, 2:4, 2 : 3 + number, 1:3] = 1
        io.write(LabelMap(data, mask.affine), tmp_path / "drawn.nii.gz")
        sent = look.json("POST", f"/api/studies/{study}/labels/{sop}/masks", 201,
                         content=(tmp_path / "drawn.nii.gz").read_bytes())  # fmt: skip
        said = {"job": job, "object": sop, "decision": "edit", "reasons": ["missed"],
                "mask": sent["mask"]}  # fmt: skip
        look.json("POST", f"/api/studies/{study}/reviews", 201, json=said)
    cohort = tmp_path / "cohort"
    vs.scan(state.folder / "corrections", out=cohort, workers=1)
    trained = vs.train("segment", cohort, out=tmp_path / "trained", steps=2)
    assert trained.finished
    assert trained.decisions["labels"] == ["lesion", "vessel"]
