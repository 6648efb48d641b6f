# SPDX-License-Identifier: Apache-2.0
"""Tiny instances, and a state with an intake to send them to."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is first imported

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import ExplicitVRLittleEndian

from vesalius.serving.intake import Intake
from vesalius.serving.runs import ServedRun
from vesalius.serving.state import State
from vesalius.serving.store import Arrival

sys.path.insert(0, str(Path(__file__).parent))  # for modules beside the tests

from server_process import Process

CT = "1.2.840.10008.5.1.4.1.1.2"
MakeInstance = Callable[..., Dataset]


def make_instance(
    number: int = 1, *, study: str = "1.2.3", series: str = "1.2.3.1", **changes: object
) -> Dataset:
    """Return a CT slice of 4 x 4 pixels; `changes` are attributes by keyword."""
    one = Dataset()
    one.SOPClassUID, one.SOPInstanceUID = CT, f"{series}.{number}"
    one.StudyInstanceUID, one.SeriesInstanceUID = study, series
    one.PatientID, one.PatientName, one.PatientBirthDate = "P-1", "Doe^Jane", "19700101"
    one.PatientSex = "F"
    one.Modality, one.BodyPartExamined = "CT", "CHEST"
    one.StudyDate, one.StudyTime, one.AccessionNumber = "20240102", "101112", "A1"
    one.StudyID, one.ReferringPhysicianName = "S1", "Roe^Jim"
    one.StudyDescription, one.SeriesDescription = "Thorax", "axial 5 mm"
    one.SeriesNumber, one.InstanceNumber = 2, number
    one.FrameOfReferenceUID = f"{study}.9"
    one.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    one.ImagePositionPatient = [0, 0, 5.0 * number]
    one.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    one.PixelSpacing, one.SliceThickness = [1, 1], 5
    one.RescaleSlope, one.RescaleIntercept = 1, -1024
    one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
    one.Rows = one.Columns = 4
    one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 12, 11, 0
    one.PixelData = bytes((number + n) % 256 if n % 2 == 0 else n % 8 for n in range(32))
    for keyword, value in changes.items():
        setattr(one, keyword, value)
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    one.file_meta.MediaStorageSOPClassUID = one.SOPClassUID
    one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID
    return one


def as_bytes(one: Dataset, *, part10: bool = True) -> bytes:
    """Return an instance as a file, or as its data set alone (explicit little endian)."""
    stream = io.BytesIO()
    if part10:
        dcmwrite(stream, one, enforce_file_format=True)
        return stream.getvalue()
    bare = Dataset(one)
    dcmwrite(stream, bare, implicit_vr=False, little_endian=True)
    return stream.getvalue()


@pytest.fixture
def instance() -> MakeInstance:
    """Return `instance(number, *, study, series, **changes)`: a data set."""
    return make_instance


@pytest.fixture
def data_set() -> Callable[..., bytes]:
    """Return `data_set(number, …)`: an instance's data set alone, explicit little endian."""
    return lambda *given, **changes: as_bytes(make_instance(*given, **changes), part10=False)


@pytest.fixture
def file() -> Callable[..., bytes]:
    """Return `file(number, …)`: an instance as a file."""
    return lambda *given, **changes: as_bytes(make_instance(*given, **changes))


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State(tmp_path / "state")


@pytest.fixture
def intake(state: State) -> Iterator[Intake]:
    taking = Intake(state, reserve=0)
    yield taking
    taking.close()


@pytest.fixture
def send(intake: Intake) -> Callable[..., Arrival]:
    """Return `send(number, origin="dimse", **changes)`, which takes an instance in."""

    def sent(number: int = 1, *, origin: str = "dimse", **changes: object) -> Arrival:
        one = make_instance(number, **changes)  # type: ignore[arg-type]
        incoming = intake.begin(
            sop_class=one.SOPClassUID,
            sop_uid=one.SOPInstanceUID,
            transfer_syntax=ExplicitVRLittleEndian,
        )
        incoming.write(as_bytes(one, part10=False))
        return intake.take(incoming, origin)

    return sent


def disc(number: int, side: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Return a picture of a disc in noise, and its mask."""
    rng = np.random.default_rng(number)
    index = np.stack(np.meshgrid(np.arange(side), np.arange(side), indexing="ij"), -1)
    mask = np.linalg.norm(index - rng.uniform(12, 24, 2), axis=-1) < 8
    return (90 + 80 * mask + rng.normal(0, 10, mask.shape)).clip(0, 255).astype(np.uint8), mask


@pytest.fixture
def disc_file(file: Callable[..., bytes]) -> Callable[..., bytes]:
    """Return `disc_file(number, **changes)`: a CT slice with a disc, as a file."""

    def made(number: int, **changes: object) -> bytes:
        pixels = disc(100 + number)[0].astype("<u2").tobytes()
        return file(number, Rows=40, Columns=40, PixelData=pixels, **changes)

    return made


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[ServedRun], Path]:
    """Two runs of different seeds, trained on drawn discs, and a folder with one more of those."""
    from vesalius.flows.scan import scan
    from vesalius.flows.train import train

    place = tmp_path_factory.mktemp("trained")
    for number in range(12):
        for folder, data in zip(("images", "labels"), disc(number), strict=True):
            (place / "data" / folder).mkdir(parents=True, exist_ok=True)
            path = place / "data" / folder / f"{number:02}.png"
            Image.fromarray(data.astype(np.uint8)).save(path)
    scan(place / "data", out=place / "cohort", workers=1)
    runs = []
    for seed in (1, 2):
        made = train("segment", place / "cohort", steps=30, seed=seed, out=place / f"run-{seed}")
        runs.append(ServedRun.load(made.path))
    (place / "exam").mkdir()
    Image.fromarray(disc(100)[0]).save(place / "exam" / "Doe_Jane_T1.png")
    return runs, place / "exam"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Return `start(*options)`: a server on the same state, in a process of its own."""
    started: list[Process] = []

    def run(*more: str) -> Process:
        started.append(Process(tmp_path / "state", *more))
        return started[-1]

    yield run
    for one in started:
        if one.child.poll() is None:
            one.end(signal.SIGKILL)
