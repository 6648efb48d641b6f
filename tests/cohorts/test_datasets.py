# SPDX-License-Identifier: Apache-2.0
"""Fetching public sets: against a local server, and against the real files where they are."""

from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vesalius.cohorts import datasets
from vesalius.cohorts.datasets import DATASETS, Dataset, fetch
from vesalius.errors import CorruptFile, UnavailableError, UsageError

CONTENT = b"PK pretend archive " * 100_000
NAME = "medmnist:tiny"


class _Handler(http.server.BaseHTTPRequestHandler):
    asked: list[str] = []  # noqa: RUF012 - one list for the server's lifetime is meant

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if not self.path.startswith("/files/tiny.npz"):
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    md5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()
    monkeypatch.setitem(DATASETS, NAME, Dataset("tiny.npz?download=1", md5))
    _Handler.asked.clear()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = False  # so that closing waits for them
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/files"
    server.shutdown()
    server.server_close()
    thread.join()


def test_downloads_checks_and_names_the_file(host: str, tmp_path: Path) -> None:
    path = fetch(NAME, tmp_path / "new", host=host)
    assert path == tmp_path / "new" / "tiny.npz"
    assert path.read_bytes() == CONTENT
    assert _Handler.asked == ["/files/tiny.npz?download=1"]
    assert fetch(NAME, tmp_path / "new", host=host) == path
    assert len(_Handler.asked) == 1  # the second call needs no network


def test_wrong_bytes_leave_nothing(
    host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DATASETS, NAME, Dataset("tiny.npz", "0" * 32))
    with pytest.raises(CorruptFile, match="published is 0000"):
        fetch(NAME, tmp_path, host=host)
    assert list(tmp_path.iterdir()) == []


def test_endless_answer_is_cut(host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "_LARGEST", 1 << 20)
    with pytest.raises(CorruptFile, match="more than 1 MiB"):
        fetch(NAME, tmp_path, host=host)
    assert list(tmp_path.iterdir()) == []


def test_no_network_says_how_to_place_the_file(host: str, tmp_path: Path) -> None:
    with pytest.raises(UnavailableError) as caught:
        fetch(NAME, tmp_path, host=host.replace("/files", "/elsewhere"))
    assert "404" in str(caught.value) or "Not Found" in str(caught.value)
    assert str(tmp_path / "tiny.npz") in str(caught.value)
    assert DATASETS[NAME].md5 in str(caught.value)
    with pytest.raises(UnavailableError, match="place it as"):
        fetch(NAME, tmp_path, host="http://127.0.0.1:9")  # discard port: refused
    assert list(tmp_path.iterdir()) == []


def test_placed_file_is_checked(host: str, tmp_path: Path) -> None:
    (tmp_path / "tiny.npz").write_bytes(CONTENT[:-1])
    with pytest.raises(CorruptFile, match="Delete it"):
        fetch(NAME, tmp_path, host=host)
    (tmp_path / "tiny.npz").write_bytes(CONTENT)
    assert fetch(NAME, tmp_path, host=host).read_bytes() == CONTENT
    assert _Handler.asked == []


def test_unknown_name_and_scheme(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Did you mean 'medmnist:breastmnist'"):
        fetch("medmnist:brestmnist", tmp_path)
    with pytest.raises(UsageError, match="http or https"):
        fetch("medmnist:breastmnist", tmp_path, host="file:///etc")


def test_table() -> None:
    assert len(DATASETS) == 18
    assert {name for name, d in DATASETS.items() if d.license != "CC BY 4.0"} == {
        "medmnist:dermamnist"
    }
    assert len({d.md5 for d in DATASETS.values()}) == 18


@pytest.mark.parametrize("name", ["breastmnist", "pneumoniamnist", "retinamnist", "adrenalmnist3d"])
def test_real_files_have_the_published_md5(name: str, data: Callable[[str], Path]) -> None:
    folder = data("medmnist")
    assert fetch(f"medmnist:{name}", folder, host="http://127.0.0.1:9") == folder / f"{name}.npz"
