# SPDX-License-Identifier: Apache-2.0
"""The page of similar cases: everything escaped, nothing fetched, and a browser shows it."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
import subprocess
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vesalius.geometry import flat_affine
from vesalius.reporting.retrieval import result_page
from vesalius.reporting.retrieval_card import CasePicture
from vesalius.reporting.retrieval_pictures import (
    SIDE,
    as_volume,
    overlaid,
    shown,
    thumbnail,
)
from vesalius.volume import Volume

CHROMIUM = shutil.which("chromium")
HOSTILE = '"><img src=x onerror=alert(1)><script>alert(2)</script>'


def _picture(seed: int) -> Volume:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:300, :200]
    pixels = 120 + 80 * np.sin(np.hypot(x - 90, y - 140) / 9) + rng.normal(0, 8, x.shape)
    data = pixels.T.clip(0, 255).astype(np.uint8)[None, ..., None]
    return Volume(data, flat_affine(), modality="US", calibrated=False)


def _case(rank: int, **changes: object) -> dict[str, object]:
    return {
        "rank": rank, "case": f"p-{rank:016x}", "score": 1 / rank, "cosine": 0.9 - rank / 50,
        "percentile": 99.3, "closeness": 62.0, "bm25": 4.5, "meaning": None,
        "topic": 0.4, "images": 3,
        "pairs": [{"query": 1, "image": f"{rank:016x}", "entry": "e", "cosine": 0.9 - rank / 50,
                   "percentile": 99.3, "closeness": 62.0}],
        "text": [{"text": "a ", "mark": ""}, {"text": "lesion", "mark": "match"},
                 {"text": " without ", "mark": ""}, {"text": "effusion", "mark": "contrary"}],
        "facts": {"modality": ["CT", "MR"][rank % 2], "age": 60 + rank, "sex": "F"},
        "entry": "e", **changes,
    }  # fmt: skip


def _answer(cases: list[dict[str, object]], **changes: object) -> dict[str, object]:
    return {
        "archive": "a.index", "version": 7, "searched": 1234, "cases": cases, "known": True,
        "verdict": "similar cases are known: nearest cosine 0.880", "rule": "unknown below 0.5",
        "scored_by": "mean best cosine of the images", "words": "lesion with effusion",
        "images": 1, "where": "age > 50", "left_out": {"an identical image": 1}, "notes": [],
        "html": None, **changes,
    }  # fmt: skip


def _page(**changes: object) -> str:
    heat = np.zeros((200, 300, 1), np.float32)
    heat[60:120, 100:180] = 1
    pictures = {}
    for rank in range(1, 7):
        volume = _picture(rank)
        both = overlaid(volume, heat) if rank % 2 else None
        pictures[f"p-{rank:016x}"] = [
            CasePicture(shown(thumbnail(volume)), 1, 0.8, both, both),
            CasePicture(shown(thumbnail(_picture(rank + 50))), 1, 0.7),
        ]
    cases = [_case(rank) for rank in range(1, 7)]
    return result_page(_answer(cases, **changes), [shown(thumbnail(_picture(0)))], pictures)


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))


def _tags(page: str) -> list[tuple[str, dict[str, str | None]]]:
    parser = _Tags()
    parser.feed(page)
    return parser.seen


def test_the_page_runs_no_script_and_fetches_nothing() -> None:
    page = _page()
    tags = _tags(page)
    assert "script" not in {name for name, _ in tags}
    assert not any(key.startswith("on") for _, attributes in tags for key in attributes)
    sources = [a["src"] for name, a in tags if name == "img"]
    assert sources
    assert all(source is not None and source.startswith("data:image/") for source in sources)
    policy = next(a["content"] for n, a in tags if a.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:;")
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert f"'sha256-{digest}'" in policy
    assert "url(" not in style[1]
    assert "@import" not in style[1]


@pytest.mark.parametrize("place", ["words", "where", "verdict", "archive", "notes", "case"])
def test_hostile_words_stay_words(place: str) -> None:
    value: object = [HOSTILE] if place == "notes" else HOSTILE
    if place == "case":
        hostile = _case(
            1, case=HOSTILE, text=[{"text": HOSTILE, "mark": "match"}],
            facts={"modality": HOSTILE, HOSTILE: HOSTILE},
        )  # fmt: skip
        page = result_page(_answer([hostile, _case(2)]), [], {})
    else:
        page = _page(**{place: value})
    assert "<script" not in page
    assert not any(key.startswith("on") for _, attrs in _tags(page) for key in attrs)
    assert "&lt;script&gt;" in page


def test_it_says_what_is_asked_and_why() -> None:
    page = _page()
    for said in (
        "6 similar cases", "lesion with effusion", "age &gt; 50", "version 7", "1,234 images",
        "1 patient left out as the query&#x27;s own, known by an identical image",
        "closer than 99.30 % of pairs", "BM25 4.5", "<mark>lesion</mark>",
    ):  # fmt: skip
        assert said in page, said
    assert re.search(r'<mark class="contrary"[^>]*>effusion</mark>', page)
    assert 'id="facet0-1"' in page  # CT or MR
    assert "main:has(#facet0-1:checked) .card:not(.facet0-1){display:none}" in page


def test_it_warns_where_nothing_similar_is_known() -> None:
    page = _page(known=False, verdict="nothing similar is known: too far")
    assert "Nothing similar is known: the 6 nearest cases all the same" in page
    assert 'class="verdict unknown"' in page
    empty = result_page(_answer([], known=False, where="", words=""), [], {})
    assert "No case to show." in empty


def test_pictures_that_are_withheld_say_so() -> None:
    page = result_page(_answer([_case(1)]), [""], {_case(1)["case"]: [CasePicture("", 1, 0.9)]})
    assert page.count("no picture: it may show a name") == 2


def test_words_alone_show_bm25() -> None:
    case = _case(1, cosine=None, percentile=None, closeness=None, pairs=[])
    assert "words: BM25 4.5" in result_page(_answer([case], images=0), [], {})


def test_a_thumbnail_is_small_and_becomes_an_image_again() -> None:
    volume = _picture(3)
    content = thumbnail(volume)
    assert max(Image.open(BytesIO(content)).size) == SIDE
    assert len(content) < 20_000
    again = as_volume(content, "US")
    assert again.modality == "US"
    assert again.data.shape[0] == 1
    assert again.shape[0] / again.shape[1] == pytest.approx(200 / 300, abs=0.01)
    small = np.asarray(Image.fromarray(volume.data[0, ..., 0]).resize(again.shape[1::-1]))
    assert np.corrcoef(small.ravel(), again.data[0, ..., 0].ravel())[0, 1] > 0.95


def test_heat_lies_where_it_is() -> None:
    heat = np.zeros((200, 300, 1), np.float32)
    heat[150:190, 20:60] = 1  # right, above
    held = overlaid(_picture(1), heat).heat
    pixels = np.asarray(Image.open(BytesIO(base64.b64decode(held.split(",")[1]))))
    rows, columns = np.nonzero(pixels[..., 3] > 100)
    height, width = pixels.shape[:2]
    assert columns.mean() / width == pytest.approx(170 / 200, abs=0.04)
    assert rows.mean() / height == pytest.approx(40 / 300, abs=0.04)


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is absent")
@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_shows_it(width: int, tmp_path: Path) -> None:
    path = tmp_path / "found.html"
    path.write_text(_page())
    shot = tmp_path / "page.png"
    assert CHROMIUM is not None
    done = subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
            "--no-first-run", "--disable-background-networking", "--disable-component-update",
            "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr",
            f"--window-size={width},2000", f"--screenshot={shot}", path.as_uri(),
        ],
        capture_output=True, text=True, check=True, timeout=250,
    )  # fmt: skip
    assert "Refused to" not in done.stderr  # what a broken content security policy logs
    assert "Content Security Policy" not in done.stderr
    pixels = np.asarray(Image.open(shot).convert("RGB")).astype(int)
    assert (pixels[..., 0] - pixels[..., 2] > 60).mean() > 0.003  # heat and highlights
    assert (pixels.max(axis=2) < 40).mean() > 0.02  # pictures on black
