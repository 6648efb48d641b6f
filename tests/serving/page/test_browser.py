# SPDX-License-Identifier: Apache-2.0
"""The whole way in a real browser: modality, worklist, overlay, a stroke, and the cohort."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time

import hospital
import numpy as np
import pytest
from pydicom import dcmwrite

from vesalius import io
from vesalius.serving import keys
from vesalius.serving.dimse import NodeSettings
from vesalius.serving.routing import default_routes
from vesalius.serving.server import Server, Settings
from vesalius.serving.studies import Completeness

CHROMIUM = shutil.which("chromium")
SECONDS = 600  # for a machine that has other work as well
SOFTWARE_GL = (
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--no-sandbox",
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3 * SECONDS),
    pytest.mark.skipif(
        CHROMIUM is None or shutil.which("storescu") is None,
        reason="chromium or dcmtk is not installed",
    ),
]


@pytest.fixture
def server(tmp_path, run):
    """Return (server, port of the page) of a server that segments with processes of its own."""
    settings = Settings(
        folder=tmp_path / "state",
        routes=default_routes([run()]),
        http=("127.0.0.1", 0),
        node=NodeSettings(port=0),
        completeness=Completeness(0.5),
        reserve=0,
    )
    ready: list[int] = []
    with Server(settings, hospital.work_on_boxes, lambda _: None) as running:
        serving = threading.Thread(target=running.serve_web, args=(ready.append,), daemon=True)
        serving.start()
        end = time.monotonic() + SECONDS
        while not ready:
            assert time.monotonic() < end
            time.sleep(0.1)
        yield running, ready[0]


@pytest.fixture
def chromium():
    """Return `launch(*flags)`: a browser; all are closed at the end."""
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        made = []

        def launch(*flags):
            made.append(driver.chromium.launch(executable_path=CHROMIUM, args=list(flags)))
            return made[-1]

        yield launch
        for one in made:
            one.close()


def opened(browser, port, key, complaints):
    """Return a page that is logged in; what the browser complains of is noted."""
    page = browser.new_page(viewport={"width": 1280, "height": 720})
    page.set_default_timeout(1000 * SECONDS)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda line: complaints.append(line.text)
            if "Content Security Policy" in line.text else None)  # fmt: skip
    page.on("request", lambda request: complaints.append(request.url)
            if not request.url.startswith((f"http://127.0.0.1:{port}/", "data:", "blob:"))
            else None)  # fmt: skip
    page.goto(f"http://127.0.0.1:{port}/")
    page.fill("#key", key)
    page.keyboard.press("Enter")
    page.wait_for_selector("tr.row .state.ready")
    return page


def test_from_the_modality_to_the_cohort(server, chromium, instance, tmp_path):
    running, port = server
    folder = tmp_path / "sent"
    folder.mkdir()

    def keep(number, **changes):
        dcmwrite(folder / f"{number}.dcm", instance(number, **changes), enforce_file_format=True)

    hospital.send_series(keep)
    subprocess.run(["storescu", "-aec", "VESALIUS", "127.0.0.1", str(running.node.port),
                    *sorted(map(str, folder.iterdir()))], check=True)  # fmt: skip
    key = keys.create(running.state, name="Dr. Roe", roles=["read", "review"])
    complaints: list[str] = []
    page = opened(chromium(*SOFTWARE_GL), port, key, complaints)
    page.keyboard.press("Enter")  # the first study is chosen already
    page.wait_for_selector("canvas[data-ready=image]")

    # What the page says of a voxel is what the image holds there, on leaning axes too.
    source = io.read(sorted(folder.iterdir()))
    for pressed in ("ArrowRight", "ArrowUp", "Shift+ArrowUp"):
        page.keyboard.press(pressed)
        where = page.locator(".where")
        voxel = tuple(int(one) for one in where.get_attribute("data-voxel").split())
        assert source.data[(0, *voxel)] == float(where.get_attribute("data-value"))
        told = where.locator("span").nth(1).inner_text().split()
        place = [float(told[n].replace(",", "")) for n in (1, 3, 5)]
        np.testing.assert_allclose(place, (source.affine @ [*voxel, 1])[:3], atol=0.06)

    picture = page.locator(".canvas canvas").screenshot(path=tmp_path / "overlay.png")
    assert _orange(picture) > 100
    page.keyboard.press("o")
    assert _orange(page.locator(".canvas canvas").screenshot()) == 0
    page.keyboard.press("o")

    page.keyboard.press("d")
    page.click('[data-pen="2"]')
    box = page.locator(".canvas canvas").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + box["height"] / 4)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 4 + 12, box["y"] + box["height"] / 4, steps=3)
    page.mouse.up()
    page.wait_for_selector("#strokes:has-text('1 stroke')")
    drawn = tuple(int(one) for one in page.locator(".where").get_attribute("data-voxel").split())
    page.get_by_label("the boundary is off").check()
    page.click("#save")
    page.wait_for_selector("#said:has-text('added to what can be trained on')")
    (label,) = running.state.folder.glob("corrections/lesion-vessel/labels/*.nii.gz")
    found = io.read_labels(label)
    assert found.shape == source.shape
    assert found.data[(0, *drawn)] == 2
    (row,) = running.state.connection().execute("SELECT decision, reasons FROM reviews").fetchall()
    assert row == ("edit", json.dumps(["boundary"]))
    assert complaints == []


def test_without_webgl_the_page_says_so(server, chromium, instance, tmp_path):
    running, port = server
    path = tmp_path / "1.dcm"
    for number in (1, 2):
        dcmwrite(path, instance(number, Rows=20, Columns=24, PixelData=hospital.pixels(number)),
                 enforce_file_format=True)  # fmt: skip
        subprocess.run(["storescu", "-aec", "VESALIUS", "127.0.0.1", str(running.node.port),
                        str(path)], check=True)  # fmt: skip
    key = keys.create(running.state, name="Dr. Roe", roles=["read", "review"])
    complaints: list[str] = []
    page = opened(chromium("--no-sandbox", "--disable-3d-apis"), port, key, complaints)
    page.keyboard.press("Enter")
    page.wait_for_selector("#no-webgl")
    page.wait_for_selector(".legend")
    assert "no WebGL 2" in page.locator("#no-webgl").inner_text()
    assert complaints == []


def _orange(png: bytes) -> int:
    """Count pixels in the color of the first structure, over gray."""
    from io import BytesIO

    from PIL import Image

    pixels = np.asarray(Image.open(BytesIO(png)).convert("RGB")).astype(int)
    return int(((pixels[..., 0] - pixels[..., 2]) > 60).sum())
