# SPDX-License-Identifier: Apache-2.0
"""Whether a server's memory stays flat while thousands of instances come in.

    python -m benchmarks.soak [--count 20000] [--each 50]

Small instances (64 x 64 pixels of 16 bits) are sent by C-STORE, one association a study; each
study is then looked for, and its metadata and one picture are fetched, as a viewer would. After
each the memory of the server's whole process tree is read. The first fifth warms up; the growth is
that from the median of the second fifth to the median of the last.
"""

from __future__ import annotations

import argparse
import http.client
import statistics
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks.receive import CT, in_a_process, instance, served
from benchmarks.record import record

SIDE = 64
FIRST = 700_000
MOST_GROWTH_MB = 20.0


def send(port: int, first: int, studies: int, each: int) -> tuple[int, float]:
    """Send studies one after the other; return how many instances were acknowledged, seconds."""
    from pynetdicom import AE

    stored, begun = 0, time.perf_counter()
    for study in range(first, first + studies):
        made = [instance(study, number, SIDE) for number in range(1, each + 1)]
        entity = AE("SOAK")
        entity.maximum_pdu_size = 0
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 120
        entity.add_requested_context(CT, made[0].file_meta.TransferSyntaxUID)
        association = entity.associate("127.0.0.1", port, ae_title="VESALIUS")
        if association.is_established:
            stored += sum(association.send_c_store(one).get("Status", -1) == 0 for one in made)
            association.release()
    return stored, time.perf_counter() - begun


def look(port: int, key: str, study: int) -> int:
    """Ask for a study as a viewer does; return how many of the answers were not 200."""
    uid = f"1.2.826.{study}"
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    wrong = 0
    for path in (
        f"/dicom-web/studies?StudyInstanceUID={uid}",
        f"/dicom-web/studies/{uid}/metadata",
        f"/dicom-web/studies/{uid}/thumbnail",
        "/metrics",
        "/health",
    ):
        connection.request("GET", path, headers={"Authorization": f"Bearer {key}"})
        answer = connection.getresponse()
        answer.read()
        wrong += answer.status != 200
    connection.close()
    return wrong


def memory(child: psutil.Process) -> float:
    """Return the memory of a process and all below it, MB."""
    total = 0
    for one in (child, *child.children(recursive=True)):
        try:
            total += one.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total / 1e6


def growth(samples: list[float]) -> float:
    """Return the growth from the second to the last fifth of samples, MB."""
    fifth = max(1, len(samples) // 5)
    return statistics.median(samples[-fifth:]) - statistics.median(samples[fifth : 2 * fifth])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--each", type=int, default=50, help="instances of a study")
    parser.add_argument("--print", action="store_true", help="print instead of recording")
    options = parser.parse_args()
    studies = max(1, options.count // options.each)
    samples: list[float] = []
    stored = wrong = 0
    spent = 0.0
    step = max(1, studies // 100)
    with (
        tempfile.TemporaryDirectory() as name,
        served(Path(name) / "state", "--quiet", "1") as (child, dicom, web, key),
    ):
        idle = memory(child)
        for first in range(0, studies, step):
            many = min(step, studies - first)
            got, seconds = in_a_process(send, dicom, FIRST + first, many, options.each)
            stored, spent = stored + got, spent + seconds
            wrong += look(web, key, FIRST + first)
            samples.append(memory(child))
            if len(samples) % 10 == 0:
                print(f"{stored:,} instances, {samples[-1]:.1f} MB", flush=True)
    grown, lost = growth(samples), studies * options.each - stored
    payload = {
        "title": "Soak",
        "what": f"A server's memory over {stored:,} small instances and what a viewer asks.",
        "unit": "MB",
        "baseline": f"the idle server takes {idle:.0f} MB",
        "bars": [
            {"bar": "growth of memory after the first fifth (MB)",
             "target": f"<= {MOST_GROWTH_MB:.0f}",
             "measured": round(grown, 1), "met": grown <= MOST_GROWTH_MB},
            {"bar": "instances not stored", "target": "0", "measured": lost, "met": lost == 0},
            {"bar": "questions not answered", "target": "0", "measured": wrong, "met": wrong == 0},
        ],
        "instances a second": round(stored / spent, 1),
        "samples": [round(one, 1) for one in samples],
    }  # fmt: skip
    if options.print:
        print(payload)
    else:
        record("soak", payload)


if __name__ == "__main__":
    main()
