# SPDX-License-Identifier: Apache-2.0
"""Certificates: there and back through JSON, with nothing lost."""

from __future__ import annotations

import json

import numpy as np
import pytest

from vesalius.errors import RunError
from vesalius.normalization.certificate import (
    Certificate,
    Check,
    Rung,
    Verdict,
    counts,
    group_name,
)
from vesalius.normalization.ladder import certify
from vesalius.normalization.series import Settings
from vesalius.volume import Volume

FULL = Certificate(
    key="0123456789abcdef",
    modality="MR",
    unit="",
    verdict=Verdict.ESCALATED,
    message="",
    method="slice-slope+mad",
    tolerance=0.03,
    ladder=(
        Rung(
            "zscore", (Check("sd", 1.0, 0.97, 1.03, True), Check("unit", None, None, None, False))
        ),
        Rung("slice-slope+mad", (Check("sd", 1.0, 0.97, 1.03, True, "note"),)),
    ),
    mask={"kind": "mr-foreground", "share": 0.4, "voxels": 17, "region_voxels": 2},
    mean=0.0,
    sd=1.0,
    region_mean=0.01,
    region_sd=0.99,
    ks=0.02,
    kl=0.001,
    slice_drift=0.1,
    worst_slice=7,
    transfers=(({"curve": "linear", "center": 1.0, "scale": 2.0},), ()),
    corrections=({"method": "slice-slope", "channels": []},),
    histograms={"before": {"low": 0.0, "high": 1.0, "shares": [0.5, 0.5]}},
    region_shares=(0.25, 0.75),
    notes=("a remark",),
    output="0123456789abcdef.nii.gz",
)


def test_json_round_trip_of_a_full_certificate() -> None:
    record = FULL.to_json()
    assert Certificate.from_json(json.loads(json.dumps(record, allow_nan=False))) == FULL
    assert record["verdict"] == "passed after escalation"


def test_json_round_trip_of_what_certify_makes() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(100, 9, (2, 20, 20, 12))
    ct = np.where(noise > 88, noise, -1000)[:1]
    for volume, method in (
        (Volume(noise, np.eye(4), modality="MR"), "auto"),
        (Volume(noise, np.eye(4), modality="MR"), "n4"),
        (Volume(noise[:1], np.eye(4), modality="MR"), "slice-slope"),
        (Volume(ct, np.eye(4), modality="CT", unit="HU"), "auto"),
        (Volume(noise * 0, np.eye(4)), "auto"),
    ):
        made = certify(volume, Settings(method), key="abc").certificate
        back = Certificate.from_json(json.loads(json.dumps(made.to_json(), allow_nan=False)))
        assert back.to_json() == made.to_json()
        assert back.verdict is made.verdict
        assert back.ladder == made.ladder


def test_other_formats_are_refused() -> None:
    with pytest.raises(RunError, match="format 1, got 9"):
        Certificate.from_json({**FULL.to_json(), "format": 9})


def test_words() -> None:
    assert FULL.certified
    assert FULL.group == "MR"
    assert (group_name("CT", "HU"), group_name("", "")) == ("CT HU", "unknown")
    assert not FULL.ladder[0].passed
    assert FULL.ladder[1].passed
    assert counts([FULL, FULL]) == {
        "passed": 0, "passed after escalation": 2, "fixed units": 0, "refused": 0,
    }  # fmt: skip
