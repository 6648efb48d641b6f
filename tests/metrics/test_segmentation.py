# SPDX-License-Identifier: Apache-2.0
"""Label maps scored in the mean over cases; a missed structure costs the worst, never NaN."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from vesalius.errors import UsageError
from vesalius.metrics import (
    compare_masks,
    failed_masks,
    segmentation_scores,
    segmentation_statistics,
    segmentation_summary,
)

LABELS = {1: "liver", 2: "spleen"}
SPACING = (2.0, 1.0, 5.0)


def maps(seed, shape=(10, 9, 6)):
    generator = np.random.default_rng(seed)
    return [generator.integers(0, 3, shape).astype(np.uint8) for _ in range(2)]


def table(n=12, lost=0):
    rows = []
    for seed in range(n):
        guess, truth = maps(seed)
        if seed < lost:
            row = failed_masks(truth, SPACING, LABELS)
        else:
            row = compare_masks(guess, truth, SPACING, LABELS)
        rows.append({"patient": f"p-{seed // 2}", "failed": seed < lost, **row})
    return pd.DataFrame(rows)


def test_means_over_cases_with_intervals_and_baseline():
    frame = table()
    scores = segmentation_scores(frame, ["liver", "spleen"], draws=200)
    found = {(s.name, s.label): s for s in scores}
    assert found["dice", "liver"].value == pytest.approx(frame["dice_liver"].mean())
    assert found["dice", ""].value == pytest.approx(frame["dice"].mean())
    assert found["hd95", ""].unit == "mm"
    assert found["volume_error", "liver"].value == pytest.approx(
        frame["volume_error_liver"].abs().mean()
    )
    assert found["volume_error", "liver"].baseline == pytest.approx(frame["volume_liver"].mean())
    assert found["dice", ""].baseline == 0
    assert found["hd95", ""].baseline == pytest.approx(frame["diagonal"].mean())
    assert found["dice", ""].n == 12
    assert found["dice", ""].n_patients == 6
    assert found["dice", ""].low < found["dice", ""].value < found["dice", ""].high
    assert "tolerance 2 mm" in found["nsd", ""].note
    assert found["lesion_f1", "liver"].value == pytest.approx(frame["lesion_f1_liver"].mean())
    assert found["lesion_f1", ""].value == pytest.approx(frame["lesion_f1"].mean())
    assert found["lesion_f1", ""].baseline == 0
    assert 0 <= found["lesion_f1", ""].low < found["lesion_f1", ""].high <= 1
    assert "IoU of 0.1" in found["lesion_f1", ""].note
    assert [s.label for s in scores[:6]] == [""] * 5 + ["liver"]


def test_failures_count_as_the_worst():
    good = {(s.name, s.label): s.value for s in segmentation_scores(table(), ["liver"], draws=2)}
    bad = {(s.name, s.label): s for s in segmentation_scores(table(lost=4), ["liver"], draws=2)}
    assert bad["dice", "liver"].n == 12
    assert bad["dice", "liver"].value < good["dice", "liver"]
    assert bad["hd95", "liver"].value > good["hd95", "liver"]
    assert bad["lesion_f1", "liver"].value < good["lesion_f1", "liver"]
    assert bad["volume_error", "liver"].value > good["volume_error", "liver"]


def test_empty_truth_is_stated_and_rated_by_the_rule():
    nothing, some = np.zeros((4, 4, 2), np.uint8), np.ones((4, 4, 2), np.uint8)
    rows = [
        {"patient": "a", **compare_masks(nothing, nothing, SPACING, {1: "x"})},
        {"patient": "b", **compare_masks(some, nothing, SPACING, {1: "x"})},
        {"patient": "c", **compare_masks(nothing, some, SPACING, {1: "x"})},
    ]
    found = {s.name: s for s in segmentation_scores(pd.DataFrame(rows), ["x"]) if s.label}
    assert found["dice"].value == pytest.approx(1 / 3)
    assert found["dice"].baseline == pytest.approx(2 / 3)
    assert "1 cases without the structure" in found["dice"].note
    assert found["hd95"].value == pytest.approx(2 / 3 * rows[0]["diagonal"])
    assert found["hd95"].baseline == pytest.approx(1 / 3 * rows[0]["diagonal"])
    assert found["lesion_f1"].value == pytest.approx(1 / 3)
    assert found["lesion_f1"].baseline == pytest.approx(2 / 3)
    for name, best in {"dice": 1, "nsd": 1, "hd95": 0, "lesion_f1": 1, "volume_error": 0}.items():
        assert f"1 cases without the structure, none predicted, count as {best}" in found[name].note


def test_summary_is_strict_json():
    frame = table(lost=2)
    summary = segmentation_summary(
        frame, ["liver", "spleen"], groups={"scanner": ["A"] * 6 + ["B"] * 6}, draws=50
    )
    json.dumps(summary, allow_nan=False)
    assert (summary["n_cases"], summary["n_failed"]) == (12, 2)
    assert [entry["value"] for entry in summary["by"]] == ["A", "B"]
    first = next(s for s in summary["by"][0]["scores"] if s["name"] == "dice")
    assert first["value"] == pytest.approx(frame["dice"][:6].mean())


def test_a_draw_equals_scoring_the_drawn_cases():
    frame = table()
    times = np.random.default_rng(0).integers(0, 3, 12)
    statistics = segmentation_statistics(frame, ["liver", "spleen"])
    drawn = frame.loc[np.repeat(np.arange(12), times)]
    weighted = statistics.of(times[None].astype(float))[0]
    assert weighted == pytest.approx(segmentation_statistics(drawn, list(LABELS.values())).values())


def test_refuses_what_does_not_fit():
    with pytest.raises(UsageError, match="lacks the columns"):
        segmentation_scores({"patient": ["a"], "dice_x": [1.0]}, ["x"])
    older = table().drop(columns=["lesion_f1_liver"])
    with pytest.raises(UsageError, match=r"'lesion_f1_liver'.*evaluate a run again"):
        segmentation_scores(older, ["liver"])
    with pytest.raises(UsageError, match="column 'patient'"):
        segmentation_scores({"dice_x": [1.0]}, ["x"])
    with pytest.raises(UsageError, match="finite"):
        segmentation_statistics(table().assign(dice_liver=np.nan), ["liver"])
    with pytest.raises(UsageError, match="nothing to score"):
        segmentation_scores({"patient": []}, ["x"])
