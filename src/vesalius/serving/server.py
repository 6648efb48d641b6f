# SPDX-License-Identifier: Apache-2.0
"""A whole server: state, node, web, queue and workers, from the start to a clean end."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from vesalius.errors import UnavailableError, UsageError
from vesalius.optional import require
from vesalius.serving import keys, memory, queue, results, versions
from vesalius.serving.audit import Audit
from vesalius.serving.dimse import Node, NodeSettings, is_loopback
from vesalius.serving.golden_watch import Checks
from vesalius.serving.health import Vitals
from vesalius.serving.intake import Intake
from vesalius.serving.page.desk import Archive, Desk
from vesalius.serving.pull import Puller
from vesalius.serving.push import Pusher, Target
from vesalius.serving.reconcile import Reconciled, reconcile
from vesalius.serving.routing import Route
from vesalius.serving.state import State
from vesalius.serving.studies import Completeness, Studies
from vesalius.serving.supervisor import Main, Supervisor
from vesalius.serving.watch import Watch

_LOG = logging.getLogger(__name__)
_CLOSING_SECONDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Of a server.

    Attributes:
        folder: of the state.
        routes: which series go to which run.
        http: (host, port) of the web services, or None.
        node: of the DICOM node, or None.
        certificate, key: files of the web services' own TLS; without, a reverse proxy is needed
            for other machines.
        insecure_http: listen to other machines without TLS, since a proxy stands before.
        completeness: when a study is complete.
        targets: where results are pushed to, and studies are pulled from.
        watch: a folder whose files are taken in.
        workers: processes that apply runs.
        results: what is made of an answer, of `results.KINDS`.
        worker_memory: bytes that a worker may take for a study, or None.
        reserve: bytes that the disk keeps free.
        largest: bytes of the largest instance.
        archive: where the page looks for similar cases.
    """

    folder: Path
    routes: Sequence[Route] = ()
    http: tuple[str, int] | None = ("127.0.0.1", 8080)
    node: NodeSettings | None = field(default_factory=NodeSettings)
    certificate: Path | None = None
    key: Path | None = None
    insecure_http: bool = False
    completeness: Completeness = field(default_factory=Completeness)
    targets: Sequence[Target] = ()
    watch: Path | None = None
    workers: int = 1
    results: Sequence[str] = results.DEFAULT
    worker_memory: int | None = None
    reserve: int = 256 << 20
    largest: int = 8 << 30
    archive: Archive | None = None

    def __post_init__(self) -> None:
        if self.http is None and self.node is None and self.watch is None:
            raise UsageError("nothing could be received: give --http, --dicom or --watch")
        if (self.certificate is None) != (self.key is None):
            raise UsageError("give both --certificate and --key, or neither")
        if self.http and not is_loopback(self.http[0]) and not (
            self.certificate or self.insecure_http
        ):  # fmt: skip
            raise UsageError(
                f"keys and images would cross the network unencrypted on {self.http[0]}; give "
                "--certificate and --key, or --behind-proxy where a proxy does the encryption"
            )


class Server:
    """A running server; a context. Its thread may then serve the web with `serve_web`."""

    def __init__(self, settings: Settings, main: Main, say: Callable[[str], None]):
        """Prepare a server; nothing runs before the context is entered.

        Args:
            settings: of it.
            main: what a worker's process runs.
            say: is told, once, the first key, and where the server listens.
        """
        self._settings = settings
        self._main = main
        self._say = say
        self._stack = ExitStack()
        self.state: State
        self.vitals: Vitals
        self.audit: Audit
        self.node: Node | None = None
        self.supervisor: Supervisor | None = None

    def __enter__(self) -> Server:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _start(self) -> None:
        settings = self._settings
        self.state = state = State(settings.folder)
        self._stack.callback(state.close)
        self._stack.enter_context(state.locked())
        self.audit = Audit(state)
        self._stack.callback(lambda: self.audit.write("server", "stop"))
        found = reconcile(state)
        results.sweep(state)
        results.remember(state, settings.results)
        memory.remember(state, settings.worker_memory)
        resumed = queue.recover(state)
        self._report(found, resumed)
        if not keys.any_valid(state):
            key = keys.create(state, name="first key", roles=["admin"])
            self._say(f"The first key, shown this once: {key}")
        intake = Intake(state, reserve=settings.reserve, largest=settings.largest)
        self._stack.callback(intake.close)
        self.vitals = Vitals(state, intake, found, rules=[route.name for route in settings.routes])
        for version in versions.settle(state, settings.routes):
            self._say(f"Rule {version.rule}: {version.run.name}, version {version.number}")
        checks = Checks(state, [route.name for route in settings.routes])
        checks.start()
        self._stack.callback(checks.close)
        names = [target.name for target in settings.targets]
        studies = Studies(state, settings.routes, settings.completeness)
        studies.start()
        self._stack.callback(studies.close)
        if settings.targets:
            title = settings.node.title if settings.node else NodeSettings().title
            pusher = Pusher(state, list(settings.targets), title)
            pusher.start()
            self._stack.callback(pusher.close)
            if any(target.scheme != "dicom" for target in settings.targets):
                puller = Puller(intake, settings.targets, self.audit)
                puller.start()
                self._stack.callback(puller.close)
        if settings.routes and settings.workers:
            self.supervisor = Supervisor(state, self._main, workers=settings.workers, targets=names)
            self._stack.callback(self.supervisor.close)
            alive = self.supervisor
            self.vitals.workers = (settings.workers, lambda: alive.alive)
        if settings.watch is not None:
            watch = Watch(intake, settings.watch)
            watch.start()
            self._stack.callback(watch.close)
        if settings.node is not None:
            self.node = node = Node(intake, settings.node, self.audit)
            self._stack.callback(node.close)
            self.vitals.associations = lambda: node.associations
            self._say(f"DICOM: {settings.node.title} at {settings.node.host}:{node.port}")
        with_now = versions.current(state.connection(), settings.routes)
        self.audit.write("server", "start", runs=sorted({route.run.id for route in with_now}))

    def serve_web(self, ready: Callable[[int], None] = lambda _: None) -> None:
        """Serve the web until the process is told to end; `ready` is told the port."""
        require("fastapi", "the web services")
        uvicorn = require("uvicorn", "the web services")
        from vesalius.serving.protocol import PatientProtocol
        from vesalius.serving.web import application

        settings = self._settings
        assert settings.http is not None  # noqa: S101 - the caller serves what was asked for
        host, port = settings.http
        for file in (settings.certificate, settings.key):
            if file is not None and not file.is_file():
                raise UsageError(f"there is no file '{file}'; give PEM files")
        listening = _listen(host, port)
        scheme = "https" if settings.certificate else "http"
        secure = bool(settings.certificate) or settings.insecure_http  # then a proxy has the TLS
        desk = Desk(self.state, self.audit, archive=settings.archive, reserve=settings.reserve)
        self._stack.callback(desk.close)
        port = listening.getsockname()[1]
        config = uvicorn.Config(
            application(
                self.vitals, self.audit, desk=desk, secure=secure, sources=settings.targets
            ),
            http=PatientProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=True,
            timeout_keep_alive=15,
            timeout_graceful_shutdown=_CLOSING_SECONDS,
            limit_concurrency=512,
            h11_max_incomplete_event_size=32 << 10,
            ssl_certfile=settings.certificate,
            ssl_keyfile=settings.key,
        )
        for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):  # they quote requests
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        self._say(f"Web: {scheme}://{host}:{port} (/docs, /dicom-web, /api, /health, /metrics)")
        ready(port)
        uvicorn.Server(config).run(sockets=[listening])

    def _report(self, found: Reconciled, resumed: int) -> None:
        for count, words in (
            (found.unfinished, "half-received files, never acknowledged, were removed"),
            (found.adopted, "whole files without an entry were taken into the index"),
            (found.removed, "files that were not whole were removed"),
            (found.missing, "instances of the index are GONE from the disk; restore a backup"),
            (resumed, "jobs that were under way begin anew"),
        ):
            if count:
                self._say(f"Start: {count} {words}")


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), backlog=512)
    except OSError as error:
        raise UnavailableError(
            f"the web services cannot listen on {host}:{port} ({error.strerror}); choose another "
            "--http"
        ) from error
