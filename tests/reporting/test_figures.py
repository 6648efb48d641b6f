# SPDX-License-Identifier: Apache-2.0
"""Charts are whole SVG files that refer to nothing outside, the same on every call."""

from __future__ import annotations

import base64
import re
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from vesalius.reporting import figures

LOG = [
    *({"event": "step", "step": n, "loss": 1 / n} for n in range(1, 900)),
    {"event": "validation", "step": 400, "scores": {"auc": 0.7, "note": "text"}},
    {"event": "validation", "step": 800, "scores": {"auc": None}},
    {"event": "end", "step": 900},
]
CHARTS = {
    "loss": lambda: figures.loss_curve(LOG),
    "validation": lambda: figures.validation_curve(LOG),
    "confusion": lambda: figures.confusion_matrix(
        {"classes": ["a", "b & <c>"], "matrix": [[3, 1], [0, 0]], "failed": [0, 1]}
    ),
    "roc": lambda: figures.roc_curves({"a": {"fpr": [0, 1], "tpr": [0, 1]}}, {"a": None}),
    "calibration": lambda: figures.calibration_plot([{"confidence": 1, "accuracy": 1, "n": 1}]),
    "distribution": lambda: figures.score_distribution(
        {"liver": np.array([0.5])}, unit_label="Dice"
    ),
}


@pytest.mark.parametrize("name", CHARTS)
def test_svg_is_whole_self_contained_and_repeatable(name):
    uri = CHARTS[name]()
    head, content = uri.split(",")
    assert head == "data:image/svg+xml;base64"
    svg = base64.b64decode(content).decode()
    assert ET.fromstring(svg).tag.endswith("svg")  # noqa: S314  our own file
    assert all(a.startswith(("#", "data:image/")) for a in re.findall(r'href="([^"]*)"', svg))
    assert "<script" not in svg
    assert CHARTS[name]() == uri


def test_nothing_logged_gives_no_chart():
    assert figures.loss_curve([]) is None
    assert figures.validation_curve([{"event": "validation", "step": 1, "scores": {}}]) is None
    assert figures.roc_curves({}, {}) is None
    assert figures.calibration_plot([]) is None
    assert figures.score_distribution({}, unit_label="Dice") is None


def test_running_mean_by_hand():
    assert figures._smooth(np.array([1.0, 2.0, 6.0])).tolist() == [1.5, 3.0, 4.0]
