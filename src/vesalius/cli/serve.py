# SPDX-License-Identifier: Apache-2.0
"""The verb `serve`: runs as a DICOM node and web services."""

from __future__ import annotations

import logging
import signal
import ssl
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vesalius.cli import terminal

if TYPE_CHECKING:
    from vesalius.serving.server import Server, Settings

_OFF = "off"


def serve(
    state: Annotated[Path, typer.Option(help="Folder that keeps all; made where it is not.")],
    runs: Annotated[
        list[Path] | None, typer.Argument(help="Run folders; none: receive and answer queries.")
    ] = None,
    http: Annotated[str, typer.Option(help="HOST:PORT of the web services, or off.")] = (
        "127.0.0.1:8080"
    ),
    dicom: Annotated[str, typer.Option(help="HOST:PORT of the DICOM node, or off.")] = (
        "127.0.0.1:11112"
    ),
    title: Annotated[str, typer.Option(help="AE title of the DICOM node.")] = "VESALIUS",
    peer: Annotated[
        list[str] | None,
        typer.Option(help="AE title that may send, or TITLE=HOST:PORT; may be given again."),
    ] = None,
    pacs: Annotated[
        list[str] | None,
        typer.Option(help="Where results go: http(s)://…/dicom-web or dicom://TITLE@HOST:PORT."),
    ] = None,
    routes: Annotated[
        Path | None, typer.Option(help="JSON file: which series go to which run.")
    ] = None,
    quiet: Annotated[
        float, typer.Option(help="Seconds without news after which a study is complete.")
    ] = 30.0,
    count: Annotated[
        int | None, typer.Option(help="Instances with which a study is complete at once.")
    ] = None,
    watch: Annotated[Path | None, typer.Option(help="Folder whose files are taken in.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that apply runs.")] = 1,
    certificate: Annotated[
        Path | None, typer.Option(help="PEM file: TLS for the web services.")
    ] = None,
    key: Annotated[Path | None, typer.Option(help="PEM file: the certificate's key.")] = None,
    dicom_tls: Annotated[
        bool, typer.Option("--dicom-tls", help="TLS for the DICOM node too; --certificate, --key.")
    ] = False,
    behind_proxy: Annotated[
        bool, typer.Option("--behind-proxy", help="Other machines come by a proxy with TLS.")
    ] = False,
    reserve: Annotated[str, typer.Option(help="What the disk keeps free.")] = "256MB",
) -> None:
    """Receive studies, apply runs to them, and answer: DICOM, DICOMweb, REST."""
    from vesalius.cli.serving_worker import main
    from vesalius.serving.dimse import NodeSettings
    from vesalius.serving.push import Target
    from vesalius.serving.routing import default_routes, read_routes
    from vesalius.serving.runs import ServedRun
    from vesalius.serving.server import Server, Settings
    from vesalius.serving.studies import Completeness

    served = [ServedRun.load(run) for run in runs or []]
    node = None
    if dicom != _OFF:
        host, port = _address(dicom, "--dicom")
        tls = _tls(certificate, key) if dicom_tls else None
        node = NodeSettings(title=title, host=host, port=port, peers=_peers(peer or []), tls=tls)
    settings = Settings(
        folder=state,
        routes=read_routes(routes, served) if routes else default_routes(served),
        http=None if http == _OFF else _address(http, "--http"),
        node=node,
        certificate=certificate,
        key=key,
        insecure_http=behind_proxy,
        completeness=Completeness(quiet, count),
        targets=[Target.parse(one) for one in pacs or []],
        watch=watch,
        workers=workers,
        reserve=terminal.byte_count(reserve),
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr,
                        format="%(asctime)s %(levelname)s %(name)s: %(message)s")  # fmt: skip
    with Server(settings, main, _say) as server:
        _until_told(server, settings)


def _until_told(server: Server, settings: Settings) -> None:
    """Serve until Ctrl-C or SIGTERM, and let what was opened be closed then."""
    signal.signal(signal.SIGTERM, _told)
    if settings.http is not None:
        server.serve_web()
    else:
        threading.Event().wait()


def _told(*_: object) -> None:
    raise SystemExit(0)


def _say(line: str) -> None:
    terminal.say(line)
    sys.stdout.flush()


def _address(text: str, option: str) -> tuple[str, int]:
    from vesalius.errors import UsageError

    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise UsageError(f"{option} must be HOST:PORT, for example 127.0.0.1:8080; got '{text}'")
    return host.strip("[]") or "127.0.0.1", int(port)


def _tls(certificate: Path | None, key: Path | None) -> ssl.SSLContext:
    from vesalius.errors import UsageError

    if certificate is None or key is None:
        raise UsageError("--dicom-tls needs --certificate and --key")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise UsageError(f"'{certificate}' with '{key}' is no certificate: {error}") from error
    return context


def _peers(given: list[str]) -> dict[str, tuple[str, int] | None]:
    peers: dict[str, tuple[str, int] | None] = {}
    for one in given:
        name, equals, address = one.partition("=")
        peers[name] = _address(address, "--peer TITLE=") if equals else None
    return peers
