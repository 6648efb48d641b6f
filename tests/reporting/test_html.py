# SPDX-License-Identifier: Apache-2.0
"""What enters a page is escaped; the page's policy names its own style and nothing else."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vesalius.reporting.html import data_uri, image, page, section, table, tag


class Reader(HTMLParser):
    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.tags, self.words = [], []

    def handle_starttag(self, name, attributes):
        self.tags.append((name, dict(attributes)))

    def handle_data(self, data):
        self.words.append(data)


@settings(max_examples=60, deadline=None)
@given(words=st.text(), attribute=st.text())
def test_any_text_comes_back_as_text(words, attribute):
    reader = Reader()
    reader.feed(tag("p", words, title=attribute))
    reader.close()
    assert [name for name, _ in reader.tags] == ["p"]
    same = [text.replace("\r\n", "\n").replace("\r", "\n") for text in (words, attribute)]
    if "\0" not in words and "\r" not in words:
        assert "".join(reader.words) == same[0]
    if "\0" not in attribute and "\r" not in attribute:
        assert reader.tags[0][1]["title"] == same[1]


def test_a_script_in_a_label_stays_words():
    html = table(["<script>alert(1)</script>"], [["<img src=x onerror=alert(1)>", None, 3]])
    assert "<script" not in html
    assert "<img" not in html
    assert "&lt;img" in html


def test_policy_names_the_style_by_its_hash():
    html = page("t", header="h", sections=[("a", "A", section("a", "A", "x"))], footer="f")
    style = re.search(r"<style>(.*?)</style>", html, re.S)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', html)[1]
    assert f"style-src &#x27;sha256-{digest}&#x27;" in policy
    assert "default-src &#x27;none&#x27;" in policy
    assert "unsafe" not in policy
    assert "script-src" not in policy  # default 'none' forbids scripts


def test_only_images_held_in_the_page():
    assert image(data_uri(b"x", "image/png"), "a").startswith("<img")
    with pytest.raises(ValueError, match="data:image/"):
        image("pictures/a.png", "a")
