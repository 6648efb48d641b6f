# SPDX-License-Identifier: Apache-2.0
"""The decoders' child process: what it may take, how it ends, and that it starts again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from vesalius.errors import CorruptFile, MissingDependency
from vesalius.io.dicom import codec_worker
from vesalius.io.dicom.sandbox import Sandbox

# The real worker, with codecs that misbehave on demand.
WILD = f"""
import os, sys, time, importlib.util
sys.path.append(os.path.dirname(__file__))
spec = importlib.util.spec_from_file_location("codec_worker", {str(codec_worker.__file__)!r})
worker = importlib.util.module_from_spec(spec)
spec.loader.exec_module(worker)
def hang(payload, job):
    while True: pass
def crash(payload, job):
    import ctypes; ctypes.string_at(0)
def once(payload, job):
    import os
    if not os.path.exists(job["mark"]):
        open(job["mark"], "w").close(); os._exit(1)
    return payload
worker.CODECS |= {{
    "echo": ("json", lambda payload, job: payload),
    "hang": ("json", hang),
    "crash": ("json", crash),
    "once": ("json", once),
    "greedy": ("json", lambda payload, job: bytes(1 << 30)),
    "raise": ("json", lambda payload, job: 1 / 0),
    "absent": ("no_such_codec", None),
    "large": ("large_library", lambda payload, job: payload),
}}
worker.main()
"""


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    script = tmp_path / "wild.py"
    script.write_text(WILD)
    box = Sandbox(script)
    yield box
    box.close()


def call(box: Sandbox, codec: str, payload: bytes = b"abcd", **options: object) -> bytes:
    seconds = options.pop("seconds", 20.0)
    expected = options.pop("expected", len(payload))
    return box.call(
        {"codec": codec, **options},
        payload,
        expected=expected,  # type: ignore[arg-type]
        memory=64 << 20,
        seconds=seconds,  # type: ignore[arg-type]
        path="scan.dcm",
    )


def test_one_child_serves_many_requests_of_any_size(sandbox: Sandbox) -> None:
    assert call(sandbox, "echo") == b"abcd"
    first = sandbox.pid
    big = os.urandom(5 << 20)
    assert call(sandbox, "echo", big) == big
    assert call(sandbox, "echo", b"") == b""
    assert sandbox.pid == first


@pytest.mark.parametrize(
    ("codec", "why"),
    [("crash", "ended"), ("raise", "ZeroDivisionError"), ("greedy", "more memory")],
)
def test_misbehavior_refuses_the_file_and_serves_the_next(
    sandbox: Sandbox, codec: str, why: str
) -> None:
    with pytest.raises(CorruptFile, match=why) as caught:
        call(sandbox, codec, expected=1 << 30)
    assert caught.value.path == "scan.dcm"
    assert caught.value.evidence["kind"] == "undecodable-frame"
    assert call(sandbox, "echo") == b"abcd"


def test_a_hang_ends_at_the_deadline(sandbox: Sandbox) -> None:
    call(sandbox, "echo")
    hung = sandbox.pid
    begin = time.monotonic()
    with pytest.raises(CorruptFile, match="too long"):
        call(sandbox, "hang", seconds=0.3)
    assert time.monotonic() - begin < 5
    assert hung is not None
    with pytest.raises(ProcessLookupError):
        os.kill(hung, 0)
    assert call(sandbox, "echo") == b"abcd"


def test_an_answer_of_another_size_is_refused(sandbox: Sandbox) -> None:
    with pytest.raises(CorruptFile, match="4 bytes, the header states 5"):
        call(sandbox, "echo", expected=5)


def test_a_death_that_is_not_the_file_s_fault_is_forgiven_once(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    assert call(sandbox, "once", mark=str(tmp_path / "mark")) == b"abcd"
    call(sandbox, "echo")
    assert sandbox.pid is not None
    os.kill(sandbox.pid, signal.SIGKILL)
    assert call(sandbox, "echo") == b"abcd"


def test_a_library_may_be_larger_than_what_the_last_request_was_allowed(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    (tmp_path / "large_library.py").write_text("import mmap; room = mmap.mmap(-1, 256 << 20)")
    assert call(sandbox, "echo") == b"abcd"  # bounds the child to 64 MiB
    assert call(sandbox, "large") == b"abcd"


def test_a_missing_codec_is_no_fault_of_the_file(sandbox: Sandbox) -> None:
    with pytest.raises(MissingDependency, match="no_such_codec"):
        call(sandbox, "absent")


@pytest.mark.parametrize("codec", ["echo", "hang"])
def test_the_child_dies_with_its_parent(tmp_path: Path, codec: str) -> None:
    script = tmp_path / "wild.py"
    script.write_text(WILD)
    program = (
        "import sys, threading, time\n"
        "from pathlib import Path\n"
        "from vesalius.io.dicom.sandbox import Sandbox\n"
        f"box = Sandbox(Path({str(script)!r}))\n"
        "job = dict(expected=1, memory=1 << 26, seconds=60.0)\n"
        "box.call({'codec': 'echo'}, b'a', **job)\n"
        "print(box.pid, flush=True)\n"
        f"box.call({{'codec': {codec!r}}}, b'a', **job)\n"
        "time.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, env=environment
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        time.sleep(0.2)
        parent.kill()
        parent.wait()
        for _ in range(50):
            if not _is_running(child):
                return
            time.sleep(0.1)
    os.kill(child, signal.SIGKILL)
    pytest.fail("the child outlived its parent")


def _is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
