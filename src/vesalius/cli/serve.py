# SPDX-License-Identifier: Apache-2.0
"""The verb `serve`: runs as a DICOM node and web services."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from vesalius.cli import terminal


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
    archive: Annotated[
        Path | None, typer.Option(help="Archive folder: the page shows similar cases of it.")
    ] = None,
    quiet: Annotated[
        float, typer.Option(help="Seconds without news after which a study is complete.")
    ] = 30.0,
    count: Annotated[
        int | None, typer.Option(help="Instances with which a study is complete at once.")
    ] = None,
    watch: Annotated[Path | None, typer.Option(help="Folder whose files are taken in.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that apply runs.")] = 1,
    worker_memory: Annotated[
        str, typer.Option(help="What a worker may take for a study, e.g. 4GB; default no bound.")
    ] = "",
    results: Annotated[
        str,
        typer.Option(help="What is made: seg, sr, key-images, gsps, rtstruct, fhir; by commas."),
    ] = "seg,sr",
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
    from vesalius.operation.serve import serve as operate

    logging.basicConfig(level=logging.WARNING, stream=sys.stderr,
                        format="%(asctime)s %(levelname)s %(name)s: %(message)s")  # fmt: skip
    operate(
        runs or [],
        state=state,
        http=http,
        dicom=dicom,
        title=title,
        peer=peer or [],
        pacs=pacs or [],
        routes=routes,
        archive=archive,
        quiet=quiet,
        count=count,
        watch=watch,
        workers=workers,
        results=results,
        worker_memory=terminal.byte_count(worker_memory) if worker_memory else None,
        certificate=certificate,
        key=key,
        dicom_tls=dicom_tls,
        behind_proxy=behind_proxy,
        reserve=terminal.byte_count(reserve),
        say=_say,
    )


def _say(line: str) -> None:
    terminal.say(line)
    sys.stdout.flush()
