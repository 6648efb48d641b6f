# SPDX-License-Identifier: Apache-2.0
"""The DICOM node: C-ECHO, C-STORE and storage commitment as a provider (PS3.4 annexes A, B, J).

A C-STORE is answered with 0x0000 after the instance is durable, never before. What an aborted
association had acknowledged stays. Instances are stored as they came: bytes are not decoded.
"""

from __future__ import annotations

import ipaddress
import logging
import sqlite3
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vesalius.errors import UnavailableError, UsageError
from vesalius.optional import require
from vesalius.serving import commitment, refusal
from vesalius.serving.audit import Audit
from vesalius.serving.intake import Intake
from vesalius.serving.refusal import Refused

if TYPE_CHECKING:
    import ssl

_LOG = logging.getLogger(__name__)
_VERIFICATION = "1.2.840.10008.1.1"
_COMMENT = 64  # characters of (0000,0902)


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """Of the DICOM node.

    Attributes:
        title: its AE title; an association must call it by this.
        host, port: where it listens; port 0 takes a free one.
        peers: AE titles that may connect -> (host, port) that reports go to, or None. Empty:
            any title, which is allowed on a loopback address alone.
        most_associations: at a time; more are turned away for the moment.
        idle_seconds: after which a silent association is ended.
        tls: of the node; None for none.
    """

    title: str = "VESALIUS"
    host: str = "127.0.0.1"
    port: int = 11112
    peers: Mapping[str, tuple[str, int] | None] = field(default_factory=dict)
    most_associations: int = 256
    idle_seconds: float = 60.0
    tls: ssl.SSLContext | None = None

    def __post_init__(self) -> None:
        for title in (self.title, *self.peers):
            if not (0 < len(title) <= 16 and title.isascii() and title.isprintable()):
                raise UsageError(f"an AE title has 1 to 16 ASCII characters, got {title!r}")
        if not self.peers and not is_loopback(self.host):
            raise UsageError(
                f"the DICOM node would listen on {self.host} for anyone; name who may send, with "
                "--peer TITLE, or listen on 127.0.0.1"
            )


class Node:
    """A running DICOM node."""

    def __init__(self, intake: Intake, settings: NodeSettings, audit: Audit | None = None):
        """Listen.

        Args:
            intake: takes instances in.
            settings: of the node.
            audit: is told, at the end of each association, what it stored.

        Raises:
            MissingDependency: pynetdicom is not installed.
            UnavailableError: the port is taken.
        """
        require("pynetdicom", "the DICOM node")
        from pynetdicom import AE, AllStoragePresentationContexts, _config, evt

        from vesalius.serving.bounds import LONGEST_PDU, Listener

        # pynetdicom's own messages quote what peers send; ours do not.
        _config.LOG_HANDLER_LEVEL = "none"
        logging.getLogger("pynetdicom").setLevel(logging.CRITICAL + 1)
        self.intake, self.settings, self._audit = intake, settings, audit
        entity = AE(settings.title)
        entity.require_called_aet = True
        entity.require_calling_aet = list(settings.peers)
        entity.maximum_associations = settings.most_associations
        entity.maximum_pdu_size = LONGEST_PDU
        entity.network_timeout = entity.acse_timeout = settings.idle_seconds
        entity.dimse_timeout = settings.idle_seconds
        for context in AllStoragePresentationContexts:
            entity.add_supported_context(context.abstract_syntax, _transfer_syntaxes())
        entity.add_supported_context(_VERIFICATION)
        entity.add_supported_context(commitment.PUSH_MODEL, scu_role=True, scp_role=True)
        self._entity = entity
        try:
            server: Any = entity.make_server(
                (settings.host, settings.port),
                ssl_context=settings.tls,
                evt_handlers=[
                    (evt.EVT_C_STORE, self._store),
                    (evt.EVT_N_ACTION, self._commit),
                    (evt.EVT_CONN_CLOSE, self._closed),
                ],
                server_class=Listener,
                intake=intake,
            )
        except OSError as error:
            raise UnavailableError(
                f"the DICOM node cannot listen on {settings.host}:{settings.port} "
                f"({error.strerror}); choose another --dicom"
            ) from error
        self._server = server
        self._thread = threading.Thread(target=server.serve_forever, name="dicom", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._server.socket.getsockname()[1])

    @property
    def associations(self) -> int:
        """How many there are at the moment."""
        return len(self._server.active_associations)

    def close(self) -> None:
        """End all associations and stop listening."""
        self._server.shutdown()
        self._thread.join()

    def _store(self, event: Any) -> Any:
        """Answer a C-STORE request."""
        try:
            arrival = self.intake.take(event.request.DataSet.arriving(), "dimse")
        except Refused as refused:
            return _status(refused.status, str(refused))
        except Exception as error:
            _LOG.error("a C-STORE request failed: %s", type(error).__name__)
            return _status(refusal.PROCESSING_FAILURE, "the server failed; send it again")
        event.assoc.dimse.stored[arrival.attributes.study_uid] += 1
        return 0x0000

    def _closed(self, event: Any) -> None:
        """Tidy up after an association, however it ended, and tell the audit log."""
        provider = event.assoc.dimse
        provider.close()
        title = str(event.assoc.requestor.ae_title or "").strip()
        while self._audit is not None and provider.stored:
            study_uid, count = provider.stored.popitem()
            try:
                self._audit.write(
                    f"dicom {title[:16]}", "store", study_uid=study_uid, instances=count
                )
            except (OSError, sqlite3.Error) as error:  # a full disk must not harm the node
                _LOG.error("the audit log could not be written: %s", type(error).__name__)

    def _commit(self, event: Any) -> tuple[Any, None]:
        """Answer a request for storage commitment; the report follows."""
        try:
            asked = commitment.asked(event.action_information)
        except Refused as refused:
            return _status(refused.status, str(refused)), None
        title = str(event.assoc.requestor.ae_title).strip()
        report = commitment.report(self.intake.state, asked)
        commitment.deliver(event.assoc, report, self.settings.peers.get(title), self.settings.title)
        return 0x0000, None


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _status(code: int, comment: str) -> Any:
    from pydicom.dataset import Dataset

    status = Dataset()
    status.Status = code
    status.ErrorComment = comment.encode("ascii", "replace").decode()[:_COMMENT]
    return status


def _transfer_syntaxes() -> list[str]:
    """Return the transfer syntaxes that are stored: those whose pixels come along with the data.

    Left out are big endian, which is retired, and JPIP, where a URL stands for the pixels.
    """
    from pydicom.uid import AllTransferSyntaxes, ExplicitVRBigEndian

    return [
        str(one)
        for one in AllTransferSyntaxes
        if one != ExplicitVRBigEndian and "JPIP" not in one.name
    ]
