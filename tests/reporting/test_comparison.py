# SPDX-License-Identifier: Apache-2.0
"""The page of a comparison: true to its JSON, self-contained, one direction with the scores."""

from __future__ import annotations

import re

import numpy as np

from vesalius.files import read_json
from vesalius.metrics import classification_statistics, paired_differences
from vesalius.metrics.comparison import LOWER_IS_BETTER
from vesalius.reporting.comparison import write_comparison
from vesalius.reporting.scores import SCORES


def content(count=3, target="<b>diagnosis</b>"):
    generator = np.random.default_rng(0)
    truth = np.arange(30) % count
    names = ["a", "b", "<i>c</i>"][:count]
    both = []
    for skill in (0.1, 1.5):
        table = generator.dirichlet(np.ones(count), 30)
        table[np.arange(30), truth] += skill
        table /= table.sum(1, keepdims=True)
        both.append(classification_statistics(truth, table, names))
    found = paired_differences(*both, range(30), draws=50)
    return {
        "format": 1, "kind": "run-comparison", "task": "classify", "target": target,
        "split": "test", "a": {"run": "classify-0a", "n_failed": 0},
        "b": {"run": "classify-0b", "n_failed": 2}, "n_cases": 30, "n_patients": 30,
        "differences": [one.to_json() for one in found],
    }  # fmt: skip


def test_the_page_shows_every_difference_and_asks_for_nothing(tmp_path):
    given = content()
    path = write_comparison(given, tmp_path / "new" / "folder")
    assert path == tmp_path / "new" / "folder" / "comparison.html"
    assert read_json(path.with_suffix(".json")) == given
    html = path.read_text(encoding="utf-8")
    shown = re.findall(r'<data value="([^"]+)">', html)
    for one in given["differences"]:
        for name in ("a", "b", "difference", "p_better"):
            if one[name] is not None:
                assert repr(float(one[name])) in shown
        if one["low"] is not None:
            assert f"{one['low']:+.3f} to {one['high']:+.3f}" in html
    assert html.count("B better</span>") == sum(
        one["verdict"] == "B better" for one in given["differences"]
    )
    assert "classify-0b" in html
    assert "2 failed" in html
    assert not re.search(r"<script|<link|src=|url\(|\bnan\b|<b>|<i>", html)
    assert "default-src &#x27;none&#x27;" in html


def test_the_lead_counts_what_tells_them_apart(tmp_path):
    given = content(count=2, target=None)
    overall = [one["verdict"] for one in given["differences"] if not one["label"]]
    html = write_comparison(given, tmp_path).read_text(encoding="utf-8")
    assert f"B on {overall.count('B better')} is better" in html
    assert f"{overall.count('not told apart')} do not tell the runs apart" in html
    assert "On 30 cases of 30 patients (test subset)" in html
    assert "classify structures" in html


def test_comparison_and_report_agree_on_which_way_is_better():
    for name, (_, _, lower) in SCORES.items():
        if lower:
            assert name in LOWER_IS_BETTER
        else:
            assert name not in LOWER_IS_BETTER
