# SPDX-License-Identifier: Apache-2.0
"""`vesalius doctor`: does this machine have what Vesalius needs, proven by doing it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

_DISTRIBUTIONS = (
    "numpy", "torch", "lightning-fabric", "pydicom", "highdicom", "python-gdcm", "pyjpegls",
    "pylibjpeg-openjpeg", "pylibjpeg-rle", "nibabel", "SimpleITK", "h5py", "lancedb", "pyarrow",
    "safetensors",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Check:
    """One thing tried: its name, whether it worked, what was seen and the way out."""

    name: str
    ok: bool
    seen: str
    way_out: str = ""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All checks of one call of `doctor`."""

    checks: tuple[Check, ...] = field(default_factory=tuple)

    @property
    def ok(self) -> bool:
        """Whether everything that was tried worked."""
        return all(check.ok for check in self.checks)


def doctor() -> Diagnosis:
    """Try what every verb relies on: libraries, codecs, durable writes, a training step."""
    trials: tuple[tuple[str, Callable[[], str], str], ...] = (
        ("libraries", _libraries, "reinstall with `pip install vesalius`"),
        ("machine", _machine, ""),
        ("disk", _disk, "free some disk space, or work in another folder"),
        ("durable write", _durable_write, "work on a local disk that supports fsync and rename"),
        ("DICOM codecs", _codecs, "reinstall pyjpegls, pylibjpeg-openjpeg, pylibjpeg-rle"),
        ("image round trip", _volume_round_trip, "reinstall nibabel"),
        ("cohort engine", _cohort_engine, "reinstall lancedb and pyarrow"),
        ("training step", _training_step, "reinstall torch for this machine"),
    )
    return Diagnosis(tuple(_attempt(*trial) for trial in trials))


def _attempt(name: str, trial: Callable[[], str], way_out: str) -> Check:
    # The whole purpose here is to turn any failure into a line that the user can act on.
    try:
        return Check(name, True, trial())
    except Exception as error:
        return Check(name, False, f"{type(error).__name__}: {error}", way_out)


def _libraries() -> str:
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _DISTRIBUTIONS)


def _machine() -> str:
    import torch

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "no GPU"
    cores = len(os.sched_getaffinity(0))
    return f"Python {platform.python_version()}, {cores} cores, {memory:.0f} GiB memory, {gpu}"


def _disk() -> str:
    free = shutil.disk_usage(".").free / (1 << 30)
    if free < 1:
        raise OSError(f"only {free:.2f} GiB free in the current folder")
    return f"{free:.0f} GiB free in the current folder"


def _durable_write() -> str:
    from vesalius.files import read_json, write_json

    with tempfile.TemporaryDirectory(dir=".") as folder:
        start = time.perf_counter()
        path = write_json(Path(folder) / "probe.json", {"probe": 1})
        seconds = time.perf_counter() - start
        if read_json(path) != {"probe": 1}:
            raise OSError("what was written is not what is read")
    return f"{seconds * 1000:.1f} ms for write, fsync and rename"


def _codecs() -> str:
    from pydicom.pixels import get_decoder
    from pydicom.uid import (
        JPEG2000Lossless,
        JPEGBaseline8Bit,
        JPEGLosslessSV1,
        JPEGLSLossless,
        RLELossless,
    )

    wanted = (RLELossless, JPEGLSLossless, JPEG2000Lossless, JPEGLosslessSV1, JPEGBaseline8Bit)
    missing = [uid.name for uid in wanted if not get_decoder(uid).is_available]
    if missing:
        raise ImportError(f"no decoder for {', '.join(missing)}")
    return f"{len(wanted)} compressed syntaxes decodable"


def _volume_round_trip() -> str:
    import numpy as np

    from vesalius.cohorts.phantom import simulate_patient
    from vesalius.io import read, write

    simulated = simulate_patient(seed=0)
    volume = next(iter(simulated.values()))
    with tempfile.TemporaryDirectory() as folder:
        path = write(volume, Path(folder) / "probe.nii.gz")
        again = read(path)
    if not np.allclose(again.affine, volume.affine, atol=1e-3):
        raise ValueError("the affine changed between write and read")
    return f"{volume!r} written and read back in place"


def _cohort_engine() -> str:
    import lancedb
    import pyarrow as pa

    with tempfile.TemporaryDirectory() as folder:
        table = lancedb.connect(folder).create_table("probe", pa.table({"a": [1, 2, 3]}))
        if table.count_rows("a > 1") != 2:
            raise ValueError("a filter over three rows gave the wrong count")
    return "table written, filtered and counted"


def _training_step() -> str:
    import torch

    start = time.perf_counter()
    torch.manual_seed(0)
    layer = torch.nn.Conv3d(1, 8, 3, padding=1)
    layer(torch.randn(2, 1, 32, 32, 32)).square().mean().backward()
    gradient = layer.weight.grad
    if gradient is None or not torch.isfinite(gradient).all():
        raise ValueError("the gradient of a 3D convolution is not finite")
    bf16 = "bf16" if torch.backends.cpu.get_cpu_capability().startswith("AVX512") else "fp32"
    return (
        f"3D convolution forward and backward in {(time.perf_counter() - start) * 1000:.0f} ms, "
        f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()} ({bf16})"
    )
