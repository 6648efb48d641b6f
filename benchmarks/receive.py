# SPDX-License-Identifier: Apache-2.0
"""How many instances a second are received durably: C-STORE on one, eight and many associations.

    python -m benchmarks.receive [--count 300] [--associations 200]

Each instance has 0.5 MB (512 x 512 pixels of 16 bits). The server is `vesalius serve` in a process
of its own, the senders another process on the same machine; a status 0x0000 or 200 counts once the
file, its folder and the index are flushed. Beside it, for what the disk can do: the same bytes
written and flushed one after the other by one thread.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import io
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil

from benchmarks.record import record

CT = "1.2.840.10008.5.1.4.1.1.2"
SIDE = 512


def instance(study: int, number: int, side: int = SIDE):
    """Return a CT slice of `side` x `side` pixels, noise of its own."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    one = Dataset()
    one.SOPClassUID, one.StudyInstanceUID = CT, f"1.2.826.{study}"
    one.SeriesInstanceUID = f"1.2.826.{study}.1"
    one.SOPInstanceUID = f"1.2.826.{study}.1.{number}"
    one.PatientID, one.PatientName, one.Modality = f"P{study}", "Bench^Mark", "CT"
    one.SeriesNumber, one.InstanceNumber = 1, number
    one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
    one.Rows = one.Columns = side
    one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 12, 11, 0
    pixels = np.random.default_rng([study, number]).integers(0, 4096, (side, side), np.uint16)
    one.PixelData = pixels.tobytes()
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    one.file_meta.MediaStorageSOPClassUID = CT
    one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID
    return one


@contextlib.contextmanager
def served(folder: Path, *more: str) -> Iterator[tuple[psutil.Process, int, int, str]]:
    """Run `vesalius serve`; yields its process, its DICOM and web port, and its first key."""
    command = [sys.executable, "-m", "vesalius.cli.main", "serve", "--state", str(folder),
               "--http", "127.0.0.1:0", "--dicom", "127.0.0.1:0", *more]  # fmt: skip
    child = psutil.Popen(command, stdout=subprocess.PIPE, text=True)
    dicom, web, key = 0, 0, ""
    try:
        for line in child.stdout:
            if found := re.search(r"vk_\S+", line):
                key = found[0]
            if found := re.search(r"DICOM: .*:(\d+)$", line):
                dicom = int(found[1])
            if found := re.search(r"Web: http://127.0.0.1:(\d+)", line):
                web = int(found[1])
                break
        yield child, dicom, web, key
    finally:
        child.terminate()
        child.wait(60)
        child.stdout.close()


def send(port: int, study: int, count: int, ready, go, out) -> None:
    """Send one study over one association; puts how many instances were acknowledged."""
    from pynetdicom import AE

    made = [instance(study, number) for number in range(count)]
    entity = AE("BENCH")
    entity.maximum_pdu_size = 0
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 120
    entity.add_requested_context(CT, made[0].file_meta.TransferSyntaxUID)
    ready.release()
    go.wait()
    association = entity.associate("127.0.0.1", port, ae_title="VESALIUS")
    stored = 0
    if association.is_established:
        stored = sum(association.send_c_store(one).get("Status", -1) == 0 for one in made)
        association.release()
    out.put(stored)


def c_store(port: int, associations: int, count: int, first: int) -> tuple[int, float]:
    """Send `count` instances over each of some associations; return how many and seconds."""
    import pynetdicom  # noqa: F401 - before many threads import it at once

    ready, go, out = threading.Semaphore(0), threading.Event(), multiprocessing.SimpleQueue()
    threads = [
        threading.Thread(target=send, args=(port, first + n, count, ready, go, out), daemon=True)
        for n in range(associations)
    ]
    for thread in threads:
        thread.start()
    for _ in threads:
        ready.acquire()
    begun = time.perf_counter()
    go.set()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - begun
    return sum(out.get() for _ in threads), seconds


def in_a_process(work: Callable[..., tuple[int, float]], *given: object) -> tuple[int, float]:
    """Do the sending in another process, so that the server has one of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, given)


def stow(port: int, key: str, count: int, together: int, first: int) -> tuple[int, float]:
    """Send `count` instances by STOW-RS, some in each request."""
    from pydicom import dcmwrite

    bodies = []
    for start in range(0, count, together):
        body = b""
        for number in range(start, min(count, start + together)):
            stream = io.BytesIO()
            dcmwrite(stream, instance(first, number), enforce_file_format=True)
            body += b"--B\r\nContent-Type: application/dicom\r\n\r\n" + stream.getvalue() + b"\r\n"
        bodies.append(body + b"--B--\r\n")
    headers = {"Content-Type": 'multipart/related; type="application/dicom"; boundary=B',
               "Authorization": f"Bearer {key}"}  # fmt: skip
    stored = 0
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    begun = time.perf_counter()
    for number, body in enumerate(bodies):
        connection.request("POST", "/dicom-web/studies", body, headers)
        answer = connection.getresponse()
        answer.read()
        if answer.status == 200:
            stored += min(together, count - number * together)
    return stored, time.perf_counter() - begun


def metadata(port: int, key: str, study: int) -> float:
    """Return the seconds that the metadata of one series take, the second time."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    path = f"/dicom-web/studies/1.2.826.{study}/series/1.2.826.{study}.1/metadata"
    for _ in range(2):
        begun = time.perf_counter()
        connection.request("GET", path, headers={"Authorization": f"Bearer {key}"})
        connection.getresponse().read()
        seconds = time.perf_counter() - begun
    return seconds


def disk(folder: Path, count: int) -> float:
    """Return how many files of 0.5 MB a second one thread writes and flushes."""
    raw = os.urandom(SIDE * SIDE * 2)
    begun = time.perf_counter()
    for number in range(count):
        with open(folder / str(number), "wb") as stream:
            stream.write(raw)
            stream.flush()
            os.fsync(stream.fileno())
    return count / (time.perf_counter() - begun)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--associations", type=int, default=200)
    parser.add_argument("--print", action="store_true", help="print instead of recording")
    options = parser.parse_args()
    count, many = options.count, options.associations
    rows = []
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        plain = disk(root, min(count, 100))
        with served(root / "state") as (child, dicom, web, key):
            idle = child.memory_info().rss
            peak = idle
            for title, associations, each, first in (
                ("C-STORE, 1 association", 1, count, 1),
                ("C-STORE, 8 associations", 8, max(1, count // 8), 100),
                (f"C-STORE, {many} associations at once", many, 3, 1000),
            ):
                stored, seconds = in_a_process(c_store, dicom, associations, each, first)
                peak = max(peak, child.memory_info().rss)
                rows.append({"what": title, "sent": associations * each, "stored": stored,
                             "seconds": round(seconds, 2),
                             "per second": round(stored / seconds, 1)})  # fmt: skip
                print(rows[-1], flush=True)
            stored, seconds = in_a_process(stow, web, key, count, 10, 50_000)
            rows.append({"what": "STOW-RS, 10 instances a request", "sent": count,
                         "stored": stored, "seconds": round(seconds, 2),
                         "per second": round(stored / seconds, 1)})  # fmt: skip
            print(rows[-1], flush=True)
            looked = metadata(web, key, 1)
            print("metadata", looked, "rss", idle / 1e6, peak / 1e6, "disk", plain, flush=True)
    lost = sum(row["sent"] - row["stored"] for row in rows)
    one, eight, _, by_stow = (row["per second"] for row in rows)
    payload = {
        "title": "Durable receive",
        "what": "Instances of 0.5 MB received a second, each acknowledged when it is durable.",
        "unit": "instances a second",
        "baseline": f"one thread writes and flushes {plain:.0f} such files a second here",
        "bars": [
            {"bar": "C-STORE, one association", "target": ">= 40/s", "measured": one,
             "met": one >= 40},
            {"bar": "C-STORE, eight associations", "target": ">= 79/s", "measured": eight,
             "met": eight >= 79},
            {"bar": "STOW-RS", "target": ">= 40/s", "measured": by_stow, "met": by_stow >= 40},
            {"bar": "not stored, of all", "target": "0", "measured": lost, "met": lost == 0},
            {"bar": f"metadata of a series of {count}", "target": "<= 0.2 s",
             "measured": round(looked, 3), "met": looked <= 0.2},
        ],
        "memory above idle (MB)": round((peak - idle) / 1e6, 1),
        "rows": rows,
    }  # fmt: skip
    if options.print:
        print(payload)
    else:
        record("receive", payload)


if __name__ == "__main__":
    main()
