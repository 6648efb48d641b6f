# SPDX-License-Identifier: Apache-2.0
"""`vesalius serve`: runs as a DICOM node and web services, until told to end."""

from __future__ import annotations

import signal
import ssl
import threading
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from vesalius.errors import UsageError
from vesalius.types import PathLike

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vesalius.serving.dimse import NodeSettings
    from vesalius.serving.page.desk import Archive

_OFF = "off"


def serve(
    runs: Sequence[PathLike] = (),
    *,
    state: PathLike,
    http: str = "127.0.0.1:8080",
    dicom: str = "127.0.0.1:11112",
    title: str = "VESALIUS",
    peer: Sequence[str] = (),
    pacs: Sequence[str] = (),
    routes: PathLike | None = None,
    archive: PathLike | None = None,
    quiet: float = 30.0,
    count: int | None = None,
    watch: PathLike | None = None,
    workers: int = 1,
    results: str = "seg,sr",
    worker_memory: int | None = None,
    certificate: PathLike | None = None,
    key: PathLike | None = None,
    dicom_tls: bool = False,
    behind_proxy: bool = False,
    reserve: int = 256 * 10**6,
    say: Callable[[str], None] = print,
) -> None:
    """Receive studies, apply runs to them, and answer; returns when the process is told to end.

    Workers are processes that import the main module: a script calls this behind
    `if __name__ == "__main__":`.

    Args:
        runs: run folders; none: receive and answer queries.
        state: folder that keeps all; made where it is not.
        http: HOST:PORT of the web services, or `off`.
        dicom: HOST:PORT of the DICOM node, or `off`.
        title: AE title of the DICOM node.
        peer: AE titles that may send, each as TITLE or TITLE=HOST:PORT.
        pacs: where results go: `http(s)://…/dicom-web` or `dicom://TITLE@HOST:PORT`.
        routes: JSON file that says which series go to which run.
        archive: folder that `vesalius index` made: the page shows similar cases of it.
        quiet: seconds without news after which a study is complete.
        count: instances with which a study is complete at once.
        watch: folder whose files are taken in.
        workers: processes that apply runs.
        worker_memory: bytes that a worker may take for a study; None for no bound.
        results: what is made of an answer: seg, sr, key-images, gsps, rtstruct, fhir; joined by
            commas.
        certificate, key: PEM files, for TLS of the web services.
        dicom_tls: TLS for the DICOM node too.
        behind_proxy: other machines come by a proxy that does the encryption.
        reserve: bytes that the disk keeps free.
        say: is told, once, the first key, and where the server listens.

    Raises:
        UsageError: options that contradict each other, or a state that another server holds.
        RunError: no finished run.
        UnavailableError: an address that cannot be listened on.
    """
    from vesalius.operation.worker import main
    from vesalius.serving import memory
    from vesalius.serving import results as kinds
    from vesalius.serving.push import Target
    from vesalius.serving.routing import default_routes, read_routes
    from vesalius.serving.runs import ServedRun
    from vesalius.serving.server import Server, Settings
    from vesalius.serving.studies import Completeness

    served = [ServedRun.load(run) for run in runs]
    settings = Settings(
        folder=Path(state),
        routes=read_routes(routes, served) if routes else default_routes(served),
        http=None if http == _OFF else _address(http, "--http"),
        node=_node(dicom, title, peer, _tls(certificate, key) if dicom_tls else None),
        certificate=None if certificate is None else Path(certificate),
        key=None if key is None else Path(key),
        insecure_http=behind_proxy,
        completeness=Completeness(quiet, count),
        targets=[Target.parse(one) for one in pacs],
        watch=None if watch is None else Path(watch),
        workers=workers,
        results=kinds.parse(results),
        worker_memory=memory.check(worker_memory),
        reserve=reserve,
        archive=_archive(archive),
    )
    with Server(settings, main, say) as server, _ended_by_sigterm():
        if settings.http is not None:
            server.serve_web()
        else:
            threading.Event().wait()


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the context as an exception, so that what was opened is closed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _told)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _told(*_: object) -> None:
    raise SystemExit(0)


def _archive(folder: PathLike | None) -> Archive | None:
    from vesalius.operation.similar import similar
    from vesalius.serving.page.desk import Archive

    if folder is None:
        return None
    if not Path(folder).is_dir():
        raise UsageError(
            f"there is no archive '{folder}'; give the folder that `vesalius index` made"
        )
    return Archive(Path(folder), similar)


def _node(
    dicom: str, title: str, peer: Sequence[str], tls: ssl.SSLContext | None
) -> NodeSettings | None:
    from vesalius.serving.dimse import NodeSettings

    if dicom == _OFF:
        return None
    host, port = _address(dicom, "--dicom")
    return NodeSettings(title=title, host=host, port=port, peers=_peers(peer), tls=tls)


def _address(text: str, option: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise UsageError(f"{option} must be HOST:PORT, for example 127.0.0.1:8080; got '{text}'")
    return host.strip("[]") or "127.0.0.1", int(port)


def _tls(certificate: PathLike | None, key: PathLike | None) -> ssl.SSLContext:
    if certificate is None or key is None:
        raise UsageError("--dicom-tls needs --certificate and --key")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise UsageError(f"'{certificate}' with '{key}' is no certificate: {error}") from error
    return context


def _peers(given: Sequence[str]) -> dict[str, tuple[str, int] | None]:
    peers: dict[str, tuple[str, int] | None] = {}
    for one in given:
        name, equals, address = one.partition("=")
        peers[name] = _address(address, "--peer TITLE=") if equals else None
    return peers
