# SPDX-License-Identifier: Apache-2.0
"""Scan against its bars: headers, pixels, memory, an unchanged rescan.

    python -m benchmarks.scan [--instances 20000] [--many 100000]

The data are generated CT instances (64 x 64, 16 bit, 100 a series). Peers run in the same process
setup on the same files: a loop of `pydicom.dcmread(stop_before_pixels=True)` + SHA-256 of the
file, and a loop of `pydicom.dcmread(...).pixel_array`. "Per core" divides by the processor seconds
of all processes together, so that it does not depend on how many cores are idle.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from benchmarks.record import record

SLICES = 100


def generate(folder: Path, count: int) -> None:
    """Write `count` CT instances, 100 a series, 10 series a patient, by patching one template."""
    import pydicom
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.826.0.1.3680043.9.9999.111111111.222222"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    ds.StudyInstanceUID = "1.2.826.0.1.3680043.9.9999.3.333333333"
    ds.SeriesInstanceUID = "1.2.826.0.1.3680043.9.9999.4.444444444"
    ds.FrameOfReferenceUID = ds.SeriesInstanceUID
    ds.PatientID, ds.PatientName = "PAT5555555", "Generated^Patient"
    ds.PatientBirthDate, ds.PatientSex, ds.Modality = "19700101", "O", "CT"
    ds.StudyDate, ds.StudyTime, ds.AccessionNumber = "20200101", "120000", "A1"
    ds.Manufacturer, ds.ManufacturerModelName = "Generated", "Benchmark"
    ds.SeriesDescription, ds.StudyDescription = "axial", "benchmark"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.InstanceNumber, ds.SeriesNumber, ds.KVP = "666666", "1", "120"
    ds.Rows = ds.Columns = 64
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
    ds.PixelSpacing, ds.SliceThickness = ["2.0", "2.0"], "2.0"
    ds.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
    ds.ImagePositionPatient = ["-64.0", "-64.0", "777777"]
    ds.RescaleSlope, ds.RescaleIntercept = "1", "-1024"
    ds.WindowCenter, ds.WindowWidth = "40", "400"
    ds.PixelData = bytes(64 * 64 * 2)
    buffer = folder / "template"
    folder.mkdir(parents=True)
    pydicom.dcmwrite(buffer, ds, enforce_file_format=True)
    template = buffer.read_bytes()
    buffer.unlink()
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    body = 1024 * (x**2 + y**2 < 0.7)
    for n in range(count):
        series, place = divmod(n, SLICES)
        target = folder / f"p{series // 10:06d}" / f"s{series:07d}"
        if not place:
            target.mkdir(parents=True)
        pixels = (body + rng.normal(0, 20, body.shape)).astype("<i2")
        data = template[: -64 * 64 * 2].replace(b"111111111.222222", b"%09d.%06d" % (series, place))
        data = data.replace(b"333333333", b"%09d" % (series // 10))
        data = data.replace(b"444444444", b"%09d" % series)
        data = data.replace(b"5555555", b"%07d" % (series // 10))
        data = data.replace(b"666666", b"%06d" % (place + 1))
        data = data.replace(b"777777", b"%06d" % (2 * place))
        (target / f"{place:06d}.dcm").write_bytes(data + pixels.tobytes())


def peer(folder: Path, *, pixels: bool) -> dict[str, float]:
    """Time pydicom over all files, in this process."""
    import pydicom

    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    started, cpu, count = time.perf_counter(), time.process_time(), 0
    for parent, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)
            if pixels:
                pydicom.dcmread(path).pixel_array.max()
            else:
                pydicom.dcmread(path, stop_before_pixels=True)
                with open(path, "rb") as stream:
                    hashlib.sha256(stream.read()).hexdigest()
            count += 1
    os.sched_setaffinity(0, cores)
    return {
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - cpu,
        "files": count,
    }


def memory_of(pid: int) -> int:
    """Return resident bytes of a process and its descendants, shared pages counted in each."""
    total, waiting = 0, [pid]
    while waiting:
        one = waiting.pop()
        try:
            text = Path(f"/proc/{one}/smaps_rollup").read_text()
            rss = next(line for line in text.splitlines() if line.startswith("Rss:"))
            total += int(rss.split()[1]) * 1024
            for task in os.listdir(f"/proc/{one}/task"):
                children = Path(f"/proc/{one}/task/{task}/children").read_text()
                waiting += [int(child) for child in children.split()]
        except (OSError, StopIteration):
            continue
    return total


def run(data: Path, out: Path, *, pixels: bool, cores: int) -> dict[str, float]:
    """Scan in a fresh process; return wall and processor seconds and peak memory of the tree."""
    held = sorted(os.sched_getaffinity(0))[:cores]
    code = (
        "import sys, time, json, resource\n"
        "from vesalius.cohorts.scan import scan\n"
        "t = time.perf_counter()\n"
        f"r = scan({str(data)!r}, {str(out)!r}, pixels={pixels}, workers={cores})\n"
        "s = time.perf_counter() - t\n"
        "u = [resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]\n"
        "print(json.dumps({'seconds': s, 'images': r.images, 'files': r.files,"
        " 'cpu_seconds': sum(x.ru_utime + x.ru_stime for x in u)}))\n"
    )
    child = subprocess.Popen(
        ["taskset", "-c", ",".join(map(str, held)), sys.executable, "-c", code],
        stdout=subprocess.PIPE,
    )
    peak = [0]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            peak[0] = max(peak[0], memory_of(child.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    text = child.communicate()[0]
    done.set()
    watcher.join()
    if child.returncode:
        raise SystemExit(child.returncode)
    return {**json.loads(text), "peak_bytes": peak[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instances", type=int, default=20_000)
    parser.add_argument("--many", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="vesalius-bench-"))
    cores = len(os.sched_getaffinity(0))
    rows: list[dict[str, object]] = []

    def timed(name: str, what: dict[str, float]) -> dict[str, float]:
        rows.append({"run": name, **{key: round(value, 3) for key, value in what.items()}})
        print(rows[-1], flush=True)
        return what

    try:
        data = work / "data"
        generate(data, options.instances)
        for parent, _, names in os.walk(data):  # both sides read from the page cache
            for name in names:
                Path(parent, name).read_bytes()
        heads, rests, agains = [], [], []
        few = work / "few"
        generate(few, SLICES)
        start = timed("one series, headers", run(few, work / "start", pixels=False, cores=1))
        for number in range(options.rounds):
            base = timed("pydicom headers + SHA-256", peer(data, pixels=False))
            out = work / f"headers-{number}"
            first = timed("headers only", run(data, out, pixels=False, cores=1))
            again = timed("headers only, unchanged", run(data, out, pixels=False, cores=1))
            heads.append(base["cpu_seconds"] / first["cpu_seconds"])
            steady = first["cpu_seconds"] - start["cpu_seconds"]
            rests.append(base["cpu_seconds"] / steady)
            agains.append(first["seconds"] / again["seconds"])
        decode = timed("pydicom decoding", peer(data, pixels=True))
        full = timed("with pixels", run(data, work / "full", pixels=True, cores=1))
        fulls = [
            timed("with pixels, unchanged", run(data, work / "full", pixels=True, cores=1))
            for _ in range(options.rounds)
        ]
        thousand = work / "thousand"
        generate(thousand, 1000)
        small = timed("1,000 with pixels", run(thousand, work / "s", pixels=True, cores=cores))
        shutil.rmtree(data)
        generate(data, options.many)
        large = timed(
            f"{options.many:,} with pixels", run(data, work / "l", pixels=True, cores=cores)
        )
    finally:
        shutil.rmtree(work)
    rescans = [full["seconds"] / again["seconds"] for again in fulls]
    growth = large["peak_bytes"] / small["peak_bytes"]
    ratio = full["cpu_seconds"] / decode["cpu_seconds"]
    record(
        "scan",
        {
            "title": "Scan",
            "what": "Scans of generated CT instances (64 x 64, 16 bit, 100 a series) on one core.",
            "data": f"{options.instances:,} instances; memory with {options.many:,}",
            "unit": "ratio of processor seconds (headers, pixels) or of wall seconds (rescan)",
            "peer": "pydicom.dcmread(stop_before_pixels=True) + SHA-256 of the file; pixel_array",
            "remarks": [
                "Start means the interpreter and the libraries: what a scan of one series takes.",
                "Memory: resident bytes of all processes, shared pages counted in each.",
            ],
            "bars": [
                _bar("headers only, times pydicom, start included", heads, 2),
                _bar("headers only, times pydicom, start left out", rests, 2),
                {"bar": "with pixels / decoding alone", "target": "<= 1.5",
                 "measured": round(ratio, 2), "met": ratio <= 1.5},
                _bar("unchanged rescan, times faster than the first scan", rescans, 20),
                _bar("the same, headers only", agains, 20),
                {"bar": f"memory at {options.many:,} / at 1,000", "target": "<= 1.2",
                 "measured": round(growth, 3), "met": growth <= 1.2},
                {"bar": f"memory at {options.many:,}, all processes", "target": "<= 600 MB",
                 "measured": f"{large['peak_bytes'] / 1e6:.0f} MB",
                 "met": large["peak_bytes"] <= 600e6},
            ],
            "rows": rows,
        },
    )  # fmt: skip


def _bar(name: str, ratios: list[float], least: float) -> dict[str, object]:
    middle = sorted(ratios)[len(ratios) // 2]
    return {
        "bar": name,
        "target": f">= {least}",
        "measured": round(middle, 2),
        "spread": f"{min(ratios):.2f} to {max(ratios):.2f} over {len(ratios)} rounds",
        "met": middle >= least,
    }


if __name__ == "__main__":
    main()
