# SPDX-License-Identifier: Apache-2.0
"""A real PACS: results pushed to Debian's Orthanc by STOW-RS and by C-STORE lie in their study."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from vesalius.serving.push import Pusher, Target
from vesalius.serving.routing import Route
from vesalius.serving.runs import ServedRun
from vesalius.serving.studies import Completeness, Studies
from vesalius.serving.worker import Answered, work_once

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("Orthanc") is None or not PLUGIN.exists(),
        reason="orthanc and orthanc-dicomweb are not installed",
    ),
]


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture
def orthanc(tmp_path):
    http, dicom = _free_port(), _free_port()
    settings = {
        "StorageDirectory": str(tmp_path / "orthanc"), "IndexDirectory": str(tmp_path / "orthanc"),
        "HttpPort": http, "DicomPort": dicom, "DicomAet": "ORTHANC",
        "RemoteAccessAllowed": False, "AuthenticationEnabled": False, "Plugins": [str(PLUGIN)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"}, "OverwriteInstances": False,
    }  # fmt: skip
    (tmp_path / "orthanc").mkdir()
    (tmp_path / "orthanc.json").write_text(json.dumps(settings))
    with open(tmp_path / "orthanc.log", "w") as log:
        child = subprocess.Popen(
            ["Orthanc", str(tmp_path / "orthanc.json")], stdout=log, stderr=subprocess.STDOUT
        )

    def call(path, data=None):
        url = f"http://127.0.0.1:{http}{path}"
        with urllib.request.urlopen(urllib.request.Request(url, data), timeout=20) as answer:
            return json.load(answer)

    end = time.monotonic() + 60
    while True:
        try:
            call("/system")
            break
        except OSError:
            assert time.monotonic() < end
            time.sleep(0.2)
    yield call, http, dicom
    child.terminate()
    child.wait(30)


def segment(run, exam, out):
    from vesalius import io
    from vesalius.volume import LabelMap

    volume = io.read(exam)
    found = LabelMap((volume.data > -1000).astype("uint8") | 1, volume.affine, names={1: "a"})
    path = io.write(found, out / "a.dcm", format="dicom-seg", source_files=sorted(exam.iterdir()))
    return Answered((path,), {})


def test_the_result_lies_once_in_its_study_by_either_way(orthanc, state, send, file):
    call, http, dicom = orthanc
    for number in (1, 2, 3):
        send(number)
        call("/instances", file(number))
    Studies(state, [Route(ServedRun(Path("run"), "0" * 16, "segment", ()))],
            Completeness(0.0)).look()  # fmt: skip
    targets = [
        Target.parse(f"http://127.0.0.1:{http}/dicom-web"),
        Target.parse(f"dicom://ORTHANC@127.0.0.1:{dicom}"),
    ]
    assert work_once(state, segment, targets=[target.name for target in targets])
    pusher = Pusher(state, targets)
    while pusher.push_once():
        pass
    states = state.connection().execute("SELECT kind, state FROM jobs ORDER BY id").fetchall()
    assert states == [("predict", "done"), ("push", "done"), ("push", "done")]
    (study,) = call("/studies?expand")
    series = call(f"/studies/{study['ID']}/series")
    held = {one["MainDicomTags"]["Modality"]: one["Instances"] for one in series}
    assert {name: len(found) for name, found in held.items()} == {"CT": 3, "SEG": 1}
    tags = call(f"/instances/{held['SEG'][0]}/simplified-tags")
    assert tags["StudyInstanceUID"] == "1.2.3"
    assert tags["FrameOfReferenceUID"] == "1.2.3.9"
