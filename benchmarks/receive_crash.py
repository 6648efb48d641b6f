# SPDX-License-Identifier: Apache-2.0
"""kill -9 at random moments of receiving and of working; nothing acknowledged may be lost.

    python -m benchmarks.receive_crash [--kills 100]

Senders send small studies over C-STORE and STOW-RS, and send again what was not acknowledged. The
server or its worker is killed at uniformly random moments and started again. The worker stands in
for a run by labeling bright voxels, so that a kill meets it within a second of work; everything
from the queue on is the server's own. At the end every instance that was ever acknowledged must be
there and whole, and each study must have exactly one result, in the state and in the PACS (another
state behind a DICOM node), under one SOP Instance UID.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from benchmarks.record import record

CT = "1.2.840.10008.5.1.4.1.1.2"
SLICES = 3
_DICOM, _WEB, _PACS = 14112, 14080, 14113  # of this machine alone


def worker(
    folder: Path,
    targets: Sequence[str],
    stop: Callable[[], bool],
    wait: Callable[[float], object],
) -> None:
    """Do jobs with the stand-in for a run."""
    from vesalius.serving.state import State
    from vesalius.serving.worker import work

    work(State(folder), label_bright, targets=targets, stop=stop, wait=wait)


def label_bright(run: Path, exam: Path, out: Path):  # a vesalius.serving.worker.Answered
    """Label the bright voxels of an exam, in half a second."""
    from vesalius import io as images
    from vesalius.serving.worker import Answered
    from vesalius.volume import LabelMap

    volume = images.read(exam)
    time.sleep(0.5)
    data = (volume.data > volume.data.mean()).astype(np.uint8)
    found = LabelMap(data, volume.affine, names={1: "bright"})
    path = images.write(
        found, out / "result.dcm", format="dicom-seg", source_files=sorted(exam.iterdir())
    )
    return Answered((path,), {"run": run.name})


def serve(folder: str, run: str) -> None:
    """Be the server, until killed."""
    from vesalius.serving.dimse import NodeSettings
    from vesalius.serving.push import Target
    from vesalius.serving.routing import default_routes
    from vesalius.serving.runs import ServedRun
    from vesalius.serving.server import Server, Settings
    from vesalius.serving.studies import Completeness

    settings = Settings(
        folder=Path(folder),
        routes=default_routes([ServedRun.load(run)]),
        http=("127.0.0.1", _WEB),
        node=NodeSettings(port=_DICOM),
        completeness=Completeness(quiet_seconds=600.0, count=SLICES),
        targets=[Target.parse(f"dicom://PACS@127.0.0.1:{_PACS}")],
    )
    with Server(settings, worker, lambda line: print(line, flush=True)) as server:
        server.serve_web()


def instance(study: int, number: int):  # a pydicom data set
    """Return a CT slice of 16 x 16 pixels."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    one = Dataset()
    one.SOPClassUID, one.StudyInstanceUID = CT, f"1.2.826.{study}"
    one.SeriesInstanceUID = f"1.2.826.{study}.1"
    one.SOPInstanceUID = f"1.2.826.{study}.1.{number}"
    one.FrameOfReferenceUID = f"1.2.826.{study}.2"
    one.PatientID, one.PatientName, one.Modality = f"P{study}", "Bench^Mark", "CT"
    one.StudyDate = one.StudyTime = one.AccessionNumber = one.StudyID = ""
    one.PatientBirthDate = one.PatientSex = one.ReferringPhysicianName = ""
    one.SeriesNumber, one.InstanceNumber = 1, number
    one.ImagePositionPatient = [0, 0, 5.0 * number]
    one.ImageOrientationPatient, one.PixelSpacing = [1, 0, 0, 0, 1, 0], [1, 1]
    one.SliceThickness = 5
    one.RescaleSlope, one.RescaleIntercept = 1, 0
    one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
    one.Rows = one.Columns = 16
    one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 12, 11, 0
    pixels = np.random.default_rng([study, number]).integers(0, 4096, (16, 16), np.uint16)
    one.PixelData = pixels.tobytes()
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    one.file_meta.MediaStorageSOPClassUID = CT
    one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID
    return one


class Senders:
    """Two threads that send study after study until told to stop."""

    def __init__(self, key: str):
        self.key = key
        self.acknowledged: set[str] = set()
        self.studies = 0
        self.end = threading.Event()
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._run, args=(way,), daemon=True)
            for way in (self._c_store, self._stow)
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Let each thread send its study to the end."""
        self.end.set()
        for thread in self._threads:
            thread.join()

    def _run(self, way: Callable[[list], set[str]]) -> None:
        while not self.end.is_set():
            with self._lock:
                self.studies += 1
                study = self.studies
            left = [instance(study, number) for number in range(1, SLICES + 1)]
            while left:  # what was begun is sent to its end, kills or not
                taken = way(left)
                self.acknowledged |= taken
                left = [one for one in left if one.SOPInstanceUID not in taken]
                if left:
                    time.sleep(0.2)
            time.sleep(0.3)

    def _c_store(self, left: list) -> set[str]:
        from pynetdicom import AE

        entity = AE("BENCH")
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 20
        entity.add_requested_context(CT, left[0].file_meta.TransferSyntaxUID)
        association = entity.associate("127.0.0.1", _DICOM, ae_title="VESALIUS")
        taken: set[str] = set()
        if association.is_established:
            for one in left:
                with suppress(RuntimeError, ValueError):
                    if association.send_c_store(one).get("Status", -1) == 0:
                        taken.add(str(one.SOPInstanceUID))
            if association.is_established:
                association.release()
        return taken

    def _stow(self, left: list) -> set[str]:
        from pydicom import dcmwrite

        body = b""
        for one in left:
            stream = io.BytesIO()
            dcmwrite(stream, one, enforce_file_format=True)
            body += b"--B\r\nContent-Type: application/dicom\r\n\r\n" + stream.getvalue() + b"\r\n"
        headers = {"Content-Type": 'multipart/related; type="application/dicom"; boundary=B',
                   "Authorization": f"Bearer {self.key}"}  # fmt: skip
        connection = http.client.HTTPConnection("127.0.0.1", _WEB, timeout=20)
        try:
            connection.request("POST", "/dicom-web/studies", body + b"--B--\r\n", headers)
            answer = connection.getresponse()
            answer.read()
            return {str(one.SOPInstanceUID) for one in left} if answer.status == 200 else set()
        except (OSError, http.client.HTTPException):
            return set()
        finally:
            connection.close()


def start(state: Path, run: Path) -> tuple[subprocess.Popen[str], str]:
    """Start the server and wait until it listens; returns its first key where it shows one."""
    command = [sys.executable, "-m", "benchmarks.receive_crash", "--serve", str(state), str(run)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    key = ""
    for line in child.stdout or ():
        if "vk_" in line:
            key = line.split()[-1]
        if line.startswith("Web:"):
            return child, key
    raise SystemExit(f"the server ended with {child.wait()}")


def children(pid: int) -> list[int]:
    """Return the worker processes of a server (not the one that only tracks resources)."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):
            found += map(int, (task / "children").read_text().split())
    workers = []
    for one in found:
        with suppress(OSError):
            if b"spawn_main" in Path(f"/proc/{one}/cmdline").read_bytes():
                workers.append(one)
    return workers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--print", action="store_true", help="print instead of recording")
    parser.add_argument("--serve", nargs=2, metavar=("STATE", "RUN"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(*options.serve)
        return
    counts = measure(options.kills, random.Random(options.seed))
    lost = counts["acknowledged"] - counts["held and whole"]
    wrong = counts["studies"] - counts["studies with one result in the PACS"]
    payload = {
        "title": "Crash: receive and work",
        "what": "Random kill -9 of the server or its worker while studies arrive.",
        "data": f"generated: studies of {SLICES} slices, C-STORE and STOW-RS by turns",
        "unit": "instances and studies",
        "bars": [
            {"bar": "kills", "target": ">= 100", "measured": counts["kills"],
             "met": counts["kills"] >= 100},
            {"bar": "acknowledged instances lost", "target": "0", "measured": lost,
             "met": lost == 0},
            {"bar": "studies without exactly one result in the PACS", "target": "0",
             "measured": wrong, "met": wrong == 0},
        ],
        "rows": [counts],
    }  # fmt: skip
    if options.print:
        print(json.dumps(payload, indent=1))
    else:
        record("receive_crash", payload, seed=options.seed)


def measure(kills: int, rng: random.Random) -> dict[str, int]:
    from vesalius.serving.dimse import Node, NodeSettings
    from vesalius.serving.intake import Intake
    from vesalius.serving.reconcile import reconcile
    from vesalius.serving.state import State

    counts = {"kills": 0, "of the server": 0, "of its worker": 0}
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "run").mkdir()
        plan = {"id": "0" * 16, "task": "segment", "measured": {"finished": True}}
        (root / "run" / "plan.json").write_text(json.dumps(plan))
        pacs = State(root / "pacs")
        taking = Intake(pacs, reserve=0)
        node = Node(taking, NodeSettings(title="PACS", port=_PACS))
        child, key = start(root / "state", root / "run")
        senders = Senders(key)
        while counts["kills"] < kills:
            time.sleep(rng.uniform(0.1, 4.0))
            workers = children(child.pid)
            if workers and rng.random() < 1 / 3:
                with suppress(ProcessLookupError):
                    os.kill(rng.choice(workers), signal.SIGKILL)
                    counts["of its worker"] += 1
            else:
                child.kill()
                child.wait()
                counts["of the server"] += 1
                child, _ = start(root / "state", root / "run")
            counts["kills"] = counts["of the server"] + counts["of its worker"]
            print(counts, len(senders.acknowledged), flush=True)
        senders.close()
        state = State(root / "state")
        settle(state)
        child.terminate()
        child.wait()
        found = reconcile(state, thorough=True)
        query = "SELECT sop_uid FROM instances WHERE origin != 'result'"
        held = {row[0] for row in state.connection().execute(query)}
        results = pacs.connection().execute(
            "SELECT study_uid, count(DISTINCT sop_uid), count(*) FROM instances GROUP BY 1"
        ).fetchall()  # fmt: skip
        node.close()
        taking.close()
    counts["studies"] = senders.studies
    counts["acknowledged"] = len(senders.acknowledged)
    counts["held and whole"] = len(senders.acknowledged & held) - found.missing - found.damaged
    counts["studies with one result in the PACS"] = sum(
        uids == files == 1 for _, uids, files in results
    )
    return counts


def settle(state) -> None:  # a vesalius.serving.state.State
    """Wait until every study is complete and no job waits any more."""
    query = (
        "SELECT (SELECT count(*) FROM studies WHERE state != 'complete') + "
        "(SELECT count(*) FROM jobs WHERE state IN ('ready', 'leased'))"
    )
    end = time.monotonic() + 600
    while state.connection().execute(query).fetchone()[0]:
        if time.monotonic() > end:
            raise SystemExit("the queue did not come to an end")
        time.sleep(0.5)


if __name__ == "__main__":
    main()
