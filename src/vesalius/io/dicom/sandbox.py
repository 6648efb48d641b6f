# SPDX-License-Identifier: Apache-2.0
"""A bounded child process for decoders written in C and C++ that meet hostile files.

The child has a limited address space, a deadline for each frame, and dies with its parent. When
it dies, only the file that killed it is refused; the next request starts a fresh one. Answers are
plain bytes of a size fixed beforehand: nothing that comes back is unpickled or trusted.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from vesalius.errors import CorruptFile, MissingDependency

_HEAD = struct.Struct("<IQ")
_MAX_TEXT = 1 << 16
_WORKER = Path(__file__).with_name("codec_worker.py")


class Sandbox:
    """One child process that answers one request at a time; started on the first.

    `script` is run with this interpreter; it speaks the protocol that `codec_worker` describes.
    """

    def __init__(self, script: Path = _WORKER) -> None:
        self._script = script
        self._child: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._lock = threading.Lock()

    @property
    def pid(self) -> int | None:
        """The child's process id while it lives."""
        child = self._child
        return child.pid if child and self._owner == os.getpid() and child.poll() is None else None

    def call(
        self,
        job: dict[str, Any],
        payload: bytes,
        *,
        expected: int,
        memory: int,
        seconds: float = 30.0,
        path: str = "",
    ) -> bytes:
        """Return the child's answer to `job`, exactly `expected` bytes.

        `memory` is what the child may allocate for it, in bytes, and `seconds` how long it may
        take. A child that dies is given one more try, since it may have died of something else;
        then, and for a refusal, a wrong size or a missed deadline, `CorruptFile` is raised.
        """
        text = json.dumps({**job, "memory": memory, "seconds": seconds + 5.0}).encode()
        request = _HEAD.pack(len(text), len(payload)) + text + payload
        with self._lock:
            for attempt in (1, 2):
                child = self._living()
                try:
                    return _exchange(child, request, expected, time.monotonic() + seconds)
                except _FailureError as refusal:
                    if refusal.is_fatal:
                        self._stop()
                    if refusal.may_retry and attempt == 1:
                        continue
                    raise CorruptFile(
                        f"a frame cannot be decoded: {refusal}",
                        path=path,
                        kind="undecodable-frame",
                        codec=str(job.get("codec", "")),
                    ) from None
                except MissingDependency:
                    raise
                except BaseException:  # an interrupt would leave half an answer in the pipe
                    self._stop()
                    raise
        raise AssertionError("unreachable")

    def close(self) -> None:
        """End the child process, if there is one."""
        with self._lock:
            self._stop()

    def _living(self) -> subprocess.Popen[bytes]:
        # After a fork the pipes belong to the parent of this process: leave them alone.
        if self._child is None or self._owner != os.getpid() or self._child.poll() is not None:
            self._stop()
            environment = {
                **os.environ,
                "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
                "OPENBLAS_NUM_THREADS": "1",
                "OMP_NUM_THREADS": "1",
            }
            self._child = subprocess.Popen(
                [sys.executable, "-P", str(self._script), str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
                bufsize=0,
            )
            self._owner = os.getpid()
            os.set_blocking(self._child.stdin.fileno(), False)  # type: ignore[union-attr]
            os.set_blocking(self._child.stdout.fileno(), False)  # type: ignore[union-attr]
        return self._child

    def _stop(self) -> None:
        child, self._child = self._child, None
        if child is None or self._owner != os.getpid():
            return
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe:
                pipe.close()


class _FailureError(Exception):
    def __init__(self, why: str, *, is_fatal: bool, may_retry: bool = False) -> None:
        super().__init__(why)
        self.is_fatal = is_fatal
        self.may_retry = may_retry


def _exchange(
    child: subprocess.Popen[bytes], request: bytes, expected: int, deadline: float
) -> bytes:
    assert child.stdin is not None  # noqa: S101 - it was opened with pipes
    assert child.stdout is not None  # noqa: S101 - it was opened with pipes
    _send(child.stdin.fileno(), request, deadline)
    text_size, size = _HEAD.unpack(_receive(child.stdout.fileno(), _HEAD.size, deadline))
    if text_size > _MAX_TEXT:
        raise _FailureError("the decoder's answer makes no sense", is_fatal=True)
    answer = json.loads(_receive(child.stdout.fileno(), text_size, deadline))
    if "missing" in answer:
        raise MissingDependency(
            f"a decoder cannot be loaded: {answer['missing']}; install Vesalius again with its "
            "dependencies"
        )
    if not answer.get("ok"):
        raise _FailureError(str(answer.get("why", "")), is_fatal=False)
    if size != expected:
        raise _FailureError(
            f"it decodes to {size:,} bytes, the header states {expected:,}", is_fatal=True
        )
    return _receive(child.stdout.fileno(), size, deadline)


def _send(handle: int, data: bytes, deadline: float) -> None:
    view = memoryview(data)
    while view:
        _wait(handle, select.POLLOUT, deadline)
        try:
            view = view[os.write(handle, view[: 1 << 20]) :]
        except BlockingIOError:
            continue
        except BrokenPipeError:
            raise _FailureError(
                "the decoder's process ended", is_fatal=True, may_retry=True
            ) from None


def _receive(handle: int, size: int, deadline: float) -> bytes:
    buffer = bytearray(size)
    view = memoryview(buffer)
    while view:
        _wait(handle, select.POLLIN, deadline)
        try:
            count = os.readv(handle, [view])
        except BlockingIOError:
            continue
        if count == 0:
            raise _FailureError("the decoder's process ended", is_fatal=True, may_retry=True)
        view = view[count:]
    return bytes(buffer)


def _wait(handle: int, event: int, deadline: float) -> None:
    poll = select.poll()
    poll.register(handle, event)
    rest = deadline - time.monotonic()
    if rest <= 0 or not poll.poll(1000 * rest):
        raise _FailureError("the decoder took too long", is_fatal=True)


DECODERS = Sandbox()
atexit.register(DECODERS.close)
