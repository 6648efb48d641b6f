# SPDX-License-Identifier: Apache-2.0
"""A real browser shows the pages: styled, with pictures, nothing refused, nothing fetched."""

from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from vesalius.reporting import write_check, write_report

CHROMIUM = shutil.which("chromium")


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is absent")
@pytest.mark.parametrize("page", ["report", "check"])
@pytest.mark.parametrize("width", [1280, 390])
def test_page_is_shown(page, width, classifier, cohort, tmp_path) -> None:
    path = (
        write_report(classifier, cohort)
        if page == "report"
        else write_check(cohort, tmp_path / "check.html")
    )
    shot = tmp_path / "page.png"
    done = subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
            "--no-first-run", "--disable-background-networking", "--disable-component-update",
            "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr",
            f"--window-size={width},2400", f"--screenshot={shot}", path.as_uri(),
        ],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    assert "Refused to" not in done.stderr  # what a broken content security policy logs
    assert "Content Security Policy" not in done.stderr
    pixels = np.asarray(Image.open(shot).convert("RGB"))
    colors = len(np.unique(pixels.reshape(-1, 3), axis=0))
    assert colors > 150  # badges, curves, pictures: an unstyled page of text has fewer
    tint = pixels[..., 0].astype(int) - pixels[..., 2]
    assert (tint > 20).mean() > 0.001  # warning and error badges are colored by the style sheet
