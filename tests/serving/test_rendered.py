# SPDX-License-Identifier: Apache-2.0
"""Frames and pictures over HTTP: the values as they are stored, windows, sizes, refusals, speed."""

from __future__ import annotations

import io
import time

import numpy as np
import pydicom
import pytest
from PIL import Image

pytest.importorskip("fastapi")

from web_client import Client

from vesalius.io.dicom.display import Window
from vesalius.serving import keys
from vesalius.serving.audit import Audit
from vesalius.serving.health import Vitals
from vesalius.serving.multipart import Begin, Parser, Piece, content_type
from vesalius.serving.web import application

AT = "/dicom-web/studies/1.2.3/series/1.2.3.1/instances/1.2.3.1.1"


@pytest.fixture
def web(state, intake):
    key = keys.create(state, name="r", roles=["admin"])
    return Client(application(Vitals(state, intake), Audit(state)), key)


@pytest.fixture
def upload(web):
    """Return `upload(path)`: a real file, put in; its place below /dicom-web."""

    def put(path):
        answer = web("POST", "/api/upload", content=path.read_bytes())
        assert answer.status_code == 200, answer.text
        one = pydicom.dcmread(path)
        return one, (
            f"/dicom-web/studies/{one.StudyInstanceUID}/series/{one.SeriesInstanceUID}"
            f"/instances/{one.SOPInstanceUID}"
        )

    return put


def parts(answer):
    """Return (content type, bytes) of each part."""
    _, parameters = content_type(answer.headers["content-type"])
    parser, found = Parser(parameters["boundary"]), []
    for event in parser.feed(answer.content):
        if isinstance(event, Begin):
            found.append([event.content_type, b""])
        elif isinstance(event, Piece):
            found[-1][1] += event.data
    parser.close()
    return [tuple(one) for one in found]


def shown(answer):
    assert answer.status_code == 200, answer.text
    return np.array(Image.open(io.BytesIO(answer.content)))


def test_frames_are_the_stored_values(web, send, instance):
    send(1)
    answer = web("GET", f"{AT}/frames/1")
    assert parts(answer) == [("application/octet-stream", instance(1).PixelData)]
    many = web("GET", f"{AT}/frames/1,1", headers={"Accept": "application/octet-stream"})
    assert len(parts(many)) == 2
    for frame in ("0", "2", "x", "1,9", "-1", "1;2", "1" * 9):
        assert web("GET", f"{AT}/frames/{frame}").status_code == 400
    assert web("GET", f"{AT}9/frames/1").status_code == 404
    assert web("GET", "/dicom-web/studies/x/series/y/instances/z/frames/1").status_code == 404
    assert web("GET", f"{AT}/frames/1", key="").status_code == 401


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("JPEGLSLosslessTransferSyntax_1.2.840.10008.1.2.4.80", "image/jls"),
        ("JPEG2000LosslessOnlyTransferSyntax_1.2.840.10008.1.2.4.90", "image/jp2"),
        ("RLELosslessTransferSyntax_1.2.840.10008.1.2.5", "image/dicom-rle"),
    ],
)
def test_compressed_frames_go_out_as_they_are_or_plain(web, upload, data, name, kind):
    folder = data("dicom/transfer_syntaxes")
    one, place = upload(folder / f"CTImage.dcm_{name}.dcm")
    ((found, raw),) = parts(web("GET", f"{place}/frames/1", headers={"Accept": "*/*"}))
    assert found == kind
    assert raw in one.PixelData
    plain = {"Accept": 'multipart/related; type="application/octet-stream"'}
    ((found, raw),) = parts(web("GET", f"{place}/frames/1", headers=plain))
    assert found == "application/octet-stream"
    reference = pydicom.dcmread(folder / "CTImage.dcm_LittleEndianExplicitTransferSyntax_"
                                "1.2.840.10008.1.2.1.dcm")  # fmt: skip
    assert raw == reference.PixelData


def test_a_picture_has_the_window_and_size_that_are_asked_for(web, send, instance):
    values = np.arange(16).reshape(4, 4) * 200
    send(1, PixelData=values.astype("<u2").tobytes(), WindowCenter=0, WindowWidth=2000)
    png = {"Accept": "image/png"}
    hounsfield = values - 1024
    assert np.array_equal(
        shown(web("GET", f"{AT}/rendered", headers=png)), Window(0, 2000).gray(hounsfield)
    )
    asked = web("GET", f"{AT}/frames/1/rendered?window=-500,300,linear-exact", headers=png)
    assert np.array_equal(shown(asked), Window(-500, 300, "LINEAR_EXACT").gray(hounsfield))
    wide = web("GET", f"{AT}/rendered?viewport=40,20", headers=png)
    assert shown(wide).shape == (20, 20)
    jpeg = web("GET", f"{AT}/rendered?quality=50")
    assert jpeg.headers["content-type"] == "image/jpeg"
    assert shown(jpeg).shape == (4, 4)


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("window=1", 400), ("window=1,0", 400), ("window=a,b", 400), ("window=1,2,curved", 400),
        ("window=nan,5", 400), ("window=1e300,5", 400), ("viewport=0,0", 400),
        ("viewport=99999,1", 400), ("viewport=5", 400), ("quality=0", 400), ("quality=x", 400),
        ("accept=image/gif", 406),
    ],
)  # fmt: skip
def test_pictures_that_are_none(web, send, query, status):
    send(1)
    assert web("GET", f"{AT}/rendered?{query}").status_code == status


def test_what_has_no_pixels_or_wrong_ones_is_refused_and_the_server_lives(web, send, file):
    send(1, Rows=60000, Columns=60000)
    send(2, Modality="SR", PixelData=None)
    send(3, PixelData=bytes(4))
    for number in (1, 2, 3):
        place = f"/dicom-web/studies/1.2.3/series/1.2.3.1/instances/1.2.3.1.{number}"
        for path in ("rendered", "frames/1", "thumbnail"):
            answer = web("GET", f"{place}/{path}")
            assert answer.status_code == 406, (number, path)
            assert "Jane" not in answer.text
    assert web("GET", "/health", key="").status_code == 200


def test_thumbnails_are_of_the_middle(web, send, data, upload):
    for number in (3, 1, 2):
        send(number, PixelData=(np.eye(4) * 100 * number).astype("<u2").tobytes())
    png = {"Accept": "image/png"}
    middle = web("GET", "/dicom-web/studies/1.2.3/series/1.2.3.1/instances/1.2.3.1.2/thumbnail",
                 headers=png)  # fmt: skip
    for path in ("/dicom-web/studies/1.2.3/thumbnail",
                 "/dicom-web/studies/1.2.3/series/1.2.3.1/thumbnail"):  # fmt: skip
        answer = web("GET", path, headers=png)
        assert answer.content == middle.content
        assert shown(answer).shape == (128, 128)
    assert web("GET", "/dicom-web/studies/1.9/thumbnail").status_code == 404


def test_who_looks_is_noted_once_in_a_while(web, send, state):
    send(1)
    for _ in range(5):
        web("GET", f"{AT}/frames/1")
        web("GET", f"{AT}/rendered")
    lines = [line for line in Audit(state).lines() if line["action"] == "view"]
    assert [line["study"] for line in lines] == [lines[0]["study"]]


def test_metadata_of_300_instances_come_from_the_index(web, state, intake, send):
    """The bar is 0.2 s; what is measured is written by benchmarks/receive.py, not here."""
    from vesalius.serving import metadata

    for number in range(1, 301):
        send(number)
    metadata.prepare(state, "1.2.3")
    begun = time.thread_time()
    found = metadata.series_metadata(state, "1.2.3", "1.2.3.1")
    spent = time.thread_time() - begun
    assert found.count(b'"00080018"') == 300
    assert spent < 0.2
    answer = web("GET", "/dicom-web/studies/1.2.3/series/1.2.3.1/metadata")
    assert answer.content == found
