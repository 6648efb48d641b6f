# SPDX-License-Identifier: Apache-2.0
"""The demo, small: every step of the main job leaves what it promises, and says it is simulated."""

from __future__ import annotations

from pathlib import Path

import vesalius as vs


def test_demo_goes_from_simulated_scans_to_a_segmentation(tmp_path: Path) -> None:
    lines: list[str] = []
    result = vs.demo(tmp_path / "demo", patients=24, steps=2, say=lines.append)
    text = "\n".join(lines)
    assert "SIMULATED" in lines[0]
    assert "patients" in text
    assert str(tmp_path / "demo") in text
    for run in (result.classifier, result.segmenter):
        for name in ("plan.json", "model.safetensors", "metrics.json", "report.html", "card.md"):
            assert (run / name).exists(), name
        assert set(vs.Run.load(run).metrics["splits"]) == {"val", "test"}
    mask = vs.read(result.prediction)
    assert isinstance(mask, vs.LabelMap)
    exam = vs.read(tmp_path / "demo" / "new-exam")
    assert mask.shape == exam.shape
    page = result.report.read_text()
    assert "simulated" in page
    assert "http://" not in page
    assert "https://" not in page
    # The defects that were planted are found under their names.
    found = set(vs.check(result.cohort).counts)
    assert {"missing-slices", "truncated-pixel-data", "two-patients", "mask-off-grid"} <= found
