# SPDX-License-Identifier: Apache-2.0
"""The page's door: a key once, then a cookie that no other site can use; and its own files."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest
from hospital import Browser

from vesalius.serving import keys
from vesalius.serving.page import sessions, site

STATIC = Path(site.__file__).parent / "static"


def test_a_key_opens_a_session_that_scripts_cannot_read(browser):
    answer = browser()("POST", "/api/session")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert "Path=/" in cookie
    assert browser("read").key not in answer.text
    look = browser().log_in()
    assert look.json("GET", "/api/session")["token"] == look.token
    assert look.json("GET", "/api/session")["name"] == "Dr. Roe"


@pytest.mark.parametrize("key", ["", "vk_wrong", "vk_000000000000_" + "a" * 43])
def test_no_key_no_session(app, key):
    assert Browser(app, key)("POST", "/api/session").status_code == 401
    forged = Browser(app, cookie=f"{sessions.COOKIE}={key}")
    assert forged("GET", "/api/worklist").status_code == 401


def test_another_site_cannot_act_for_the_reader(browser, segmented):
    look = browser().log_in()
    said = {"job": segmented[0], "decision": "accept"}
    forged = Browser(look.app, cookie=look.cookie, token="")
    for token in ("", "wrong"):
        forged.token = token
        assert forged("POST", "/api/studies/1.2.3/reviews", json=said).status_code == 403
        assert forged("DELETE", "/api/session").status_code == 403
    assert forged("GET", "/api/worklist").status_code == 200
    assert look("POST", "/api/studies/1.2.3/reviews", json=said).status_code == 201


def test_a_session_ends_with_its_key_its_time_and_its_wish(browser, state, app, monkeypatch):
    key = keys.create(state, name="a", roles=["read"])
    look = Browser(app, key).log_in()
    assert look("GET", "/api/worklist").status_code == 200
    keys.revoke(state, key.split("_")[1])
    assert look("GET", "/api/worklist").status_code == 401
    look = browser("read").log_in()
    assert look("DELETE", "/api/session").status_code == 200
    assert look("GET", "/api/worklist").status_code == 401
    look = browser("read").log_in()
    monkeypatch.setattr(sessions, "_IDLE_SECONDS", -1.0)
    assert look("GET", "/api/worklist").status_code == 401


def test_a_session_has_the_roles_of_its_key(browser):
    look = browser("read").log_in()
    assert look("GET", "/api/keys").status_code == 403
    assert look("POST", "/api/studies/1.2.3/reviews", json={}).status_code == 403


def test_the_page_comes_without_a_key_and_packed(app):
    look = Browser(app)
    page = look("GET", "/")
    assert page.status_code == 200
    policy = page.headers["content-security-policy"]
    assert "unsafe" not in policy
    assert policy.startswith("default-src 'self';")
    bundle = look("GET", "/page/niivue.js", headers={"Accept-Encoding": "gzip"})
    assert bundle.headers["content-encoding"] == "gzip"
    again = look("GET", "/page/niivue.js", headers={"If-None-Match": bundle.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    for name in ("nothing.js", "..%2fsite.py", "niivue.sha256"):
        assert look("GET", f"/page/{name}").status_code == 404


def test_the_page_is_small_and_loads_nothing_from_elsewhere():
    files = [path for path in STATIC.iterdir() if path.suffix in (".html", ".css", ".js", ".svg")]
    assert sum(len(gzip.compress(path.read_bytes())) for path in files) < 1_000_000
    for path in files:
        if path.name == "niivue.js":
            continue
        text = path.read_text()
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text), path
        assert not re.search(r"\b(innerHTML|outerHTML|insertAdjacentHTML|eval)\b", text), path
    html = (STATIC / "index.html").read_text()
    assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=|\sstyle=|<style", html)
    named = re.findall(r"(?:src|href)=\"/page/([^\"]+)\"", html)
    assert named
    assert all((STATIC / name).is_file() for name in named)


def test_the_bundle_is_the_one_that_was_built():
    import hashlib

    told = (STATIC / "niivue.sha256").read_text().split()[0]
    assert hashlib.sha256((STATIC / "niivue.js").read_bytes()).hexdigest() == told
    assert "BSD 2-Clause" in (STATIC / "niivue.LICENSES.txt").read_text()
