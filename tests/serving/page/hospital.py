# SPDX-License-Identifier: Apache-2.0
"""A small hospital for the tests of the page: a CT series, runs that answer, and browsers."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np

from vesalius import io
from vesalius.serving.page.sessions import TOKEN
from vesalius.serving.routing import default_routes
from vesalius.serving.studies import Completeness, Studies
from vesalius.serving.worker import Answered, work_once
from vesalius.volume import LabelMap

ROWS, COLUMNS, SLICES = 20, 24, 6
OBLIQUE = [0.9396926208, 0.3420201433, 0.0, 0.0, 0.0, -1.0]
NORMAL = np.cross(OBLIQUE[:3], OBLIQUE[3:])


def pixels(number, patient="P-1"):
    """A bright box in a field that is each patient's own, the box of another size on each slice."""
    rng = np.random.default_rng(sum(patient.encode()))
    values = np.kron(rng.integers(930, 1080, (5, 6)), np.ones((4, 4))).astype(np.uint16)
    values[4 : 8 + number, 6 : 10 + number] = 1200
    return values.tobytes()


def send_series(send, *, oblique=True, study="1.2.3", patient="P-1"):
    """Send a CT series through the door, slice by slice."""
    for number in range(1, SLICES + 1):
        place = {}
        if oblique:
            place = {
                "ImageOrientationPatient": OBLIQUE,
                "ImagePositionPatient": [round(float(one), 6) for one in 5.0 * number * NORMAL],
            }
        send(number, study=study, series=f"{study}.1", Rows=ROWS, Columns=COLUMNS,
             PixelSpacing=[1.5, 0.75], PixelData=pixels(number, patient), PatientID=patient,
             **place)  # fmt: skip


def boxes(run, exam, out):
    """Answer as a segmenter would: the bright box is a lesion, its first row a vessel."""
    files = sorted(exam.iterdir())
    volume = io.read(exam)
    data = (volume.data > 100).astype(np.uint8)
    data[:, :, :8][data[:, :, :8] > 0] = 2
    names = {1: "lesion", 2: "vessel"}
    found = LabelMap(data, volume.affine, names=names)
    path = io.write(found, out / "a.dcm", format="dicom-seg", source_files=files)
    answer = {
        "task": "segment",
        "volumes_ml": [{"lesion": 1.0, "vessel": 1.0}],
        "expected_dice": [{"lesion": 0.9, "vessel": 0.4}],
        "geometry": [],
        "notes": ["a note"],
    }
    return Answered((path,), answer)


def classes(run, exam, out):
    """Answer as a classifier would."""
    probabilities = {"benign": 0.7, "malignant": 0.3}
    return Answered((), {"task": "classify", "target": "diagnosis", "predicted": "benign",
                         "probabilities": probabilities, "label_set": ["benign"]})  # fmt: skip


def work_on_boxes(folder, targets, stop, wait):
    """What a worker's process runs, in the tests with a whole server."""
    from vesalius.serving.state import State
    from vesalius.serving.worker import work

    work(State(folder), boxes, targets=targets, stop=stop, wait=wait)


class Here:
    """Calls in this process: what a process of its own changes is tested apart."""

    def __init__(self, **_):
        pass

    def call(self, function, *given):
        return function(*given)

    def close(self):
        pass


@dataclass
class Browser:
    """Calls the application in-process, with a key or with the cookie of a session."""

    app: object
    key: str = ""
    cookie: str = ""
    token: str = ""

    def __call__(self, method, path, *, headers=None, **named):
        sent = dict(headers or {})
        if self.cookie:
            sent |= {"Cookie": self.cookie, TOKEN: self.token}
        elif self.key:
            sent |= {"Authorization": f"Bearer {self.key}"}

        async def call():
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://pacs") as client:
                return await client.request(method, path, headers=sent, **named)

        return asyncio.run(call())

    def json(self, method, path, status=200, **named):
        answer = self(method, path, **named)
        assert answer.status_code == status, answer.text
        return answer.json()

    def log_in(self):
        """Return a browser that has a session."""
        answer = self("POST", "/api/session")
        assert answer.status_code == 201, answer.text
        cookie = answer.headers["set-cookie"].partition(";")[0]
        return Browser(self.app, cookie=cookie, token=answer.json()["token"])


def answer_all(state, run, predict):
    """Complete all studies and do their work."""
    Studies(state, default_routes([run]), Completeness(0.0)).look()
    while work_once(state, predict):
        pass


def read_bytes(raw: bytes, folder: Path, name="got.nii.gz"):
    """Read what an answer holds as an image."""
    path = folder / name
    path.write_bytes(raw)
    return io.read(path)
