# SPDX-License-Identifier: Apache-2.0
"""The main job on real input, through the command line alone, from scan to predict.

`python -m benchmarks.main_job [NAME …]` runs the named jobs (default all) on VESALIUS_DATA, keeps
what each command printed, and writes both to JSON; README's section is generated from it.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.record import RESULTS, record


@dataclass(frozen=True)
class Job:
    """One data set and what is done with it."""

    data: str
    task: str
    minutes: float
    options: tuple[str, ...] = ()
    scan: tuple[str, ...] = ()
    exam: str = ""
    predict: tuple[str, ...] = ()
    split: str = "test"
    remarks: tuple[str, ...] = field(default_factory=tuple)


JOBS = {
    "breastmnist": Job(
        data="medmnist/breastmnist.npz", task="classify", minutes=3,
        options=("--target", "label"), scan=("--license", "CC BY 4.0"),
        remarks=("Official splits.",),
    ),
    "retinamnist": Job(
        data="medmnist/retinamnist.npz", task="classify", minutes=4,
        options=("--target", "label"), scan=("--license", "CC BY 4.0"),
        remarks=("Official splits; the ordinal grades are treated as classes here.",),
    ),
    "hippocampus": Job(
        data="hippocampus", task="segment", minutes=7, scan=("--license", "CC BY-SA 4.0"),
        exam="hippocampus/images/hippocampus_001.nii.gz", predict=("--format", "nifti"),
        remarks=("The exam predicted at the end shows geometry; it may be a training case.",),
    ),
    "sunnybrook": Job(
        data="sunnybrook", task="segment", minutes=6, scan=("--license", "public domain"),
        remarks=("Split by patient, taken from the file names.",),
    ),
}  # fmt: skip


def run(command: list[str], cwd: Path) -> dict[str, object]:
    """Run one command and return what a user would see."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "vesalius.cli.main", *command],
        cwd=cwd, capture_output=True, text=True, check=False,
    )  # fmt: skip
    shown = {
        "command": shlex.join(["vesalius", *command]),
        "seconds": round(time.perf_counter() - start, 1),
        "exit": done.returncode,
        "stdout": done.stdout.strip().splitlines(),
    }
    print(f"$ {shown['command']}\n{done.stdout}{done.stderr[-500:] if done.returncode else ''}")
    if done.returncode:
        raise SystemExit(f"{shown['command']} exited with {done.returncode}")
    return shown


def do(name: str, job: Job, root: Path, work: Path) -> dict[str, object]:
    """Do one job in a folder of its own."""
    folder = work / name
    folder.mkdir(parents=True)
    (folder / "DATA").symlink_to(root / job.data)
    steps = [
        run(["scan", "DATA", "--out", "cohort", *job.scan], folder),
        run(["check", "cohort", "--limit", "3"], folder),
        run(
            ["train", job.task, "cohort", *job.options, "--minutes", f"{job.minutes:g}",
             "--out", "run"],
            folder,
        ),
        run(["evaluate", "run", "cohort", "--split", job.split], folder),
    ]  # fmt: skip
    if job.exam:
        (folder / "EXAM.nii.gz").symlink_to(root / job.exam)
        steps.append(run(["predict", "run", "EXAM.nii.gz", "--out", "out", *job.predict], folder))
    metrics = json.loads((folder / "run" / "metrics.json").read_text())
    plan = json.loads((folder / "run" / "plan.json").read_text())
    return {
        "steps": steps,
        "scores": metrics["splits"][job.split]["scores"],
        "plan": plan["id"],
        "measured": plan["measured"],
        "remarks": list(job.remarks),
    }


def ct_series(root: Path, work: Path) -> dict[str, object]:
    """Scan and check the real CT DICOM series, and segment it with the demo's (simulated) model."""
    folder = work / "ct_abdomen"
    folder.mkdir(parents=True)
    (folder / "DATA").symlink_to(root / "ct_abdomen" / "example_ct_dicom")
    steps = [
        run(["scan", "DATA", "--out", "cohort", "--license", "Apache-2.0"], folder),
        run(["check", "cohort", "--limit", "5"], folder),
        run(["demo", "--out", "demo"], folder),
        run(["predict", "demo/segmenter", "DATA", "--out", "out", "--format", "dicom-seg"], folder),
    ]
    return {
        "steps": steps,
        "remarks": [
            "The model saw simulated torsos only: a real DICOM series comes back as a DICOM SEG",
            "on its own grid; that does not make the model good.",
        ],
    }


def main() -> None:
    """Do the jobs named on the command line, one at a time, and merge them into the record."""
    root = Path(os.environ["VESALIUS_DATA"])
    names = sys.argv[1:] or [*JOBS, "ct_abdomen"]
    earlier = RESULTS / "main_job.json"
    jobs = json.loads(earlier.read_text())["jobs"] if earlier.exists() else {}
    work = Path(tempfile.mkdtemp(prefix="main-job-"))
    for name in names:
        jobs[name] = ct_series(root, work) if name == "ct_abdomen" else do(
            name, JOBS[name], root, work
        )  # fmt: skip
    shutil.rmtree(work)
    rows = [
        {"data": name, "score": score["name"], "label": score["label"],
         "value": score["value"], "low": score["low"], "high": score["high"],
         "n": score["n"], "patients": score["n_patients"],
         "baseline": f"{score['baseline_name']} {score['baseline']}"}
        for name, job in sorted(jobs.items())
        for score in job.get("scores", [])
    ]  # fmt: skip
    record(
        "main_job",
        {
            "title": "The main job on real input",
            "what": "Scan, check, train, evaluate and predict by the command line on public data.",
            "data": "breastmnist, retinamnist (official splits); hippocampus, sunnybrook (grouped "
            "splits); one CT DICOM series",
            "split": "test, read once per configuration",
            "noise": "95 % interval, bootstrap over patients",
            "rows": rows,
            "jobs": jobs,
        },
    )


if __name__ == "__main__":
    main()
