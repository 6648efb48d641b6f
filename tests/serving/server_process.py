# SPDX-License-Identifier: Apache-2.0
"""A server in a process of its own, and patience."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

KIND = 'multipart/related; type="application/dicom"; boundary=BOUND'


class Process:
    """A server in a process of its own."""

    def __init__(self, folder: Path, *more: str):
        self.folder = folder
        command = [sys.executable, "-m", "vesalius.cli.main", "serve", *more, "--state",
                   str(folder), "--http", "127.0.0.1:0", "--dicom", "127.0.0.1:0"]  # fmt: skip
        self.child = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.key, self.said, self.port, self.dicom = "", [], 0, 0
        for line in self.child.stdout:
            self.said.append(line)
            if found := re.search(r"vk_\S+", line):
                self.key = found[0]
            if found := re.search(r"DICOM: .*:(\d+)$", line):
                self.dicom = int(found[1])
            if found := re.search(r"Web: http://127.0.0.1:(\d+)", line):
                self.port = int(found[1])
                break
        assert self.port, "".join(self.said)
        wait_for(lambda: self.call("/health", "")[0] == 200)

    def call(self, path, key=None, data=None, **headers):
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data=data)
        if key != "":
            request.add_header("Authorization", f"Bearer {key or self.key}")
        for name, value in headers.items():
            request.add_header(name.replace("_", "-"), value)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()
        except OSError:
            return 0, b""

    def store(self, *files: bytes):
        head = b"--BOUND\r\nContent-Type: application/dicom\r\n\r\n"
        body = b"".join(head + one + b"\r\n" for one in files) + b"--BOUND--\r\n"
        return self.call("/dicom-web/studies", data=body, Content_Type=KIND)[0]

    def end(self, how=signal.SIGTERM):
        self.child.send_signal(how)
        self.child.wait(120)
        self.child.stdout.close()
        return self.child.returncode


def wait_for(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.1)
