# SPDX-License-Identifier: Apache-2.0
"""The page of `normalize`: every verdict, histograms inside their frames, nothing that is raw."""

from __future__ import annotations

import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from vesalius.normalization import Certificate, Verdict
from vesalius.normalization.certificate import Check, Rung
from vesalius.normalization.equivalence import site_equivalence
from vesalius.normalization.histograms import record
from vesalius.reporting import write_normalization

CHROMIUM = shutil.which("chromium")
REQUEST = {
    "method": "auto", "options": {}, "sd_tolerance": 0.05, "masks": False, "rescale_units": False,
    "where": "", "written": "nifti",
}  # fmt: skip


def certificate(number: int, verdict: Verdict, **more) -> Certificate:
    rng = np.random.default_rng(number)
    values = rng.choice([300.0, 650, 1000], 4000) * rng.uniform(0.5, 2) + rng.normal(0, 50, 4000)
    scaled = np.clip((values - values.mean()) / values.std(), -2, 2)
    good = Rung("zscore", (Check("sd", 1.0, 0.95, 1.05, True),))
    bad = Rung("zscore", (Check("outliers", 0.4, None, 0.05, False),))
    fields = {
        Verdict.PASSED: {"method": "zscore", "ladder": (good,)},
        Verdict.ESCALATED: {"method": "mad", "ladder": (bad, Rung("mad", good.checks))},
        Verdict.FIXED: {"unit": "HU", "ladder": (Rung("fixed units", ()),)},
        Verdict.REFUSED: {"reason": "constant", "message": "every value is 7"},
    }[verdict]
    shown = {"before": record(values), "after": record(scaled)}
    if verdict == Verdict.FIXED:
        del shown["after"]
    return Certificate(
        f"{number:016x}",
        "CT" if verdict == Verdict.FIXED else "MR",
        verdict=verdict,
        mask={"kind": "mr-foreground"},
        mean=0.0,
        sd=1.0,
        region_mean=0.01 * number,
        region_sd=1 + 0.01 * number,
        ks=0.04,
        slice_drift=0.1,
        histograms={} if verdict == Verdict.REFUSED else shown,
        **{"unit": "", **fields, **more},
    )


def all_verdicts() -> list[Certificate]:
    verdicts = [*[Verdict.PASSED] * 5, *[Verdict.ESCALATED] * 3, *[Verdict.FIXED] * 2]
    return [
        *[certificate(n, verdict) for n, verdict in enumerate(verdicts)],
        certificate(10, Verdict.REFUSED, message="<script>alert(1)</script>"),
        certificate(11, Verdict.PASSED, notes=("region-sd 1.2 lies a little outside",)),
    ]


def written(tmp_path, certificates, equivalence=(), **request) -> str:
    path = write_normalization(
        tmp_path / "page.html", certificates, equivalence, {"request": REQUEST | request}
    )
    return path.read_text()


def test_every_series_and_verdict_is_told(tmp_path) -> None:
    certificates = all_verdicts()
    text = written(tmp_path, certificates)
    for one in certificates:
        assert one.key in text
    for words in (
        "9 of 10 series without a physical unit are certified: the standard deviation",
        "within 0.05 of 1",
        "zscore (outliers) → mad",
        "region-sd 1.2 lies a little outside",
        "CT HU",
        "Fewer than two sites or scanners",
        "before: 9 series",
    ):
        assert words in text
    tiles = re.findall(r'class="value">(\d+)<', text)
    assert tiles == ["6", "3", "2", "1"]
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "http" not in re.sub(r'http-equiv|xmlns="[^"]*"', "", text)


def test_worst_come_first(tmp_path) -> None:
    text = written(tmp_path, all_verdicts())
    table = text[text.index('id="series"') : text.index('id="look"')]
    order = [int(key, 16) for key in re.findall(r'class="key">([0-9a-f]{16})<', table)]
    assert order[0] == 10  # refused
    assert order[1:4] == [7, 6, 5]  # escalated, by what the region departs
    assert order[-2:] == [9, 8]  # fixed units


def test_histograms_stay_in_their_frames(tmp_path) -> None:
    text = written(tmp_path, all_verdicts())
    frames = re.findall(r'<svg viewBox="0 0 ([\d.]+) ([\d.]+)" width="100%".*?</svg>', text, re.S)
    assert len(frames) == 2 + 9 * 2 + 2  # overlays, pairs, and what was not rescaled
    for figure in re.findall(r"<svg.*?</svg>", text, re.S):
        width, height = map(float, re.search(r'viewBox="0 0 (\S+) (\S+)"', figure).groups())
        for points in re.findall(r'points="([^"]*)"', figure):
            places = np.array([pair.split(",") for pair in points.split()], float)
            assert (places >= 0).all()
            assert (places[:, 0] <= width + 0.1).all()
            assert (places[:, 1] <= height).all()
    # a distribution of three peaks, drawn: the middle of the frame is not flat
    first = re.search(r'<polygon points="([^"]*)"', text).group(1)
    heights = np.array([pair.split(",")[1] for pair in first.split()], float)
    assert len(np.unique(heights)) > 10


def test_sites_are_compared_in_words(tmp_path) -> None:
    rng = np.random.default_rng(0)
    sites = [*"a" * 9, *"b" * 9, *"c" * 2]
    means = np.r_[rng.normal(0, 0.02, 9), rng.normal(0.6, 0.02, 9), 0.3, 0.3]
    text = written(
        tmp_path, all_verdicts(), site_equivalence(sites, means, rng.normal(1, 0.02, 20))
    )
    for words in ("equivalent", "not shown", "too few series", "&lt; 0.001"):
        assert words in text


def test_a_method_without_the_promise_makes_none(tmp_path) -> None:
    plain = Rung("percentile", (Check("region-mean", 0.3, 0.2, 0.4, True),))
    text = written(tmp_path, [certificate(1, Verdict.PASSED, ladder=(plain,))], method="percentile")
    assert "the method promises no standard deviation" in text
    assert "lies within 0.05" not in text


def test_nothing_at_all_is_a_page_too(tmp_path) -> None:
    text = written(tmp_path, [])
    assert "No series was refused" in text
    assert "No series was rescaled" in text


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is absent")
@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_shows_it(width: int, tmp_path) -> None:
    written(tmp_path, all_verdicts())
    shot = tmp_path / "page.png"
    done = subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
            "--no-first-run", "--disable-background-networking", "--disable-component-update",
            "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr",
            f"--window-size={width},2400", f"--screenshot={shot}",
            (tmp_path / "page.html").as_uri(),
        ],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    assert "Refused to" not in done.stderr
    assert "Content Security Policy" not in done.stderr
    pixels = np.asarray(Image.open(shot).convert("RGB"))
    tint = pixels[..., 0].astype(int) - pixels[..., 2]
    assert (tint > 20).mean() > 5e-5  # the badge of a refusal
    gray = (np.ptp(pixels.astype(int), axis=-1) < 25) & (pixels.mean(axis=-1) < 160)
    assert gray.mean() > 0.01  # the histograms
