# SPDX-License-Identifier: Apache-2.0
"""A real PACS: studies pulled from Debian's Orthanc, results pushed to it by both ways."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from vesalius.serving import pull
from vesalius.serving.audit import Audit
from vesalius.serving.pull import Puller
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


def segment_all(run, exam, out):
    """Make every kind of object of a label map, by the code of `vesalius predict`."""
    import numpy as np

    from vesalius import io
    from vesalius.flows.predicting.beside import Facts, make_beside
    from vesalius.flows.predicting.label_maps import write_label_map
    from vesalius.io.maker import Maker
    from vesalius.volume import LabelMap

    volume = io.read(exam)
    labels = np.zeros(volume.data.shape, np.uint8)
    labels[0, 1:3, 1:4, :2] = 1
    found = LabelMap(labels, volume.affine, names={1: "liver"})
    maker = Maker(model="segment-00000000", run_id="0" * 16, limits="For tests.")
    facts = Facts(number=1, volumes_ml={"liver": 0.1}, expected_dice={"liver": 0.5}, remarks=[])
    main = write_label_map(found, volume, out / "segmentation-1", "dicom-seg", maker)
    names = ("dicom-sr", "key-images", "gsps", "rtstruct")
    beside, notes = make_beside(names, found, volume, out, maker, facts)
    assert notes == []
    return Answered((main, *beside), {})


def test_a_study_is_pulled_and_every_kind_of_result_comes_back(
    orthanc, state, intake, file, tmp_path
):
    call, http, _ = orthanc
    for number in (1, 2, 3):
        call("/instances", file(number))
    target = Target.parse(f"http://127.0.0.1:{http}/dicom-web")
    puller = Puller(intake, [target], Audit(state))
    pull.ask(state, target, "1.2.3")
    assert puller.pull_once()
    query = "SELECT state, answer FROM jobs WHERE kind = 'pull'"
    name, answer = state.connection().execute(query).fetchone()
    assert (name, json.loads(answer)["instances"]) == ("done", 3)
    pull.ask(state, target, "9.9.9")
    assert puller.pull_once()
    query = "SELECT state, reason FROM jobs WHERE study_uid = '9.9.9'"
    assert state.connection().execute(query).fetchone() == ("refused", "the PACS has no such study")

    Studies(state, [Route(ServedRun(Path("run"), "0" * 16, "segment", ()))],
            Completeness(0.0)).look()  # fmt: skip
    assert work_once(state, segment_all, targets=[target.name])
    pusher = Pusher(state, [target])
    while pusher.push_once():
        pass
    failed = "SELECT reason FROM jobs WHERE kind = 'push' AND state != 'done'"
    assert state.connection().execute(failed).fetchall() == []
    (study,) = call("/studies?expand")
    series = call(f"/studies/{study['ID']}/series")
    kinds = sorted(one["MainDicomTags"]["Modality"] for one in series)
    assert kinds == ["CT", "CT", "PR", "RTSTRUCT", "SEG", "SR"]
    for one in series:
        for instance in one["Instances"]:
            tags = call(f"/instances/{instance}/simplified-tags")
            assert tags["PatientID"] == "P-1"
            path = tmp_path / f"{instance}.dcm"
            url = f"http://127.0.0.1:{http}/instances/{instance}/file"
            with urllib.request.urlopen(url, timeout=20) as answer:
                path.write_bytes(answer.read())
            if shutil.which("dcmdump"):  # dcmtk reads what came back, without complaint
                done = subprocess.run(["dcmdump", "-q", str(path)], capture_output=True, text=True)
                assert (done.returncode, done.stderr) == (0, "")
            if tags["Modality"] == "SR" and shutil.which("dsrdump"):
                done = subprocess.run(["dsrdump", str(path)], capture_output=True, text=True)
                assert done.returncode == 0, done.stderr
                assert "Volume of liver" in done.stdout
