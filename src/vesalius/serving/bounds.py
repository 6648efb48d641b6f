# SPDX-License-Identifier: Apache-2.0
"""pynetdicom's associations with bounds: on a PDU's length and time, a message's memory and queue.

A peer may announce 4 GB for a PDU, send it a byte a minute, never end a data set, or send a
hundred messages without waiting for an answer. Here a PDU is at most as long as was advertised
and arrives within its time; a data set is held in memory up to 1 MiB and goes on in a file of the
state; what is more than allowed is read and thrown away, so that the peer can be told; and a
peer that does not wait for answers is cut off.
"""

from __future__ import annotations

import io
import socketserver
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import DIMSEMessage
from pynetdicom.transport import AssociationSocket, RequestHandler, ThreadedAssociationServer

from vesalius.serving import refusal
from vesalius.serving.intake import Intake
from vesalius.serving.refusal import Refused
from vesalius.serving.store import Incoming

LONGEST_PDU = 131_072  # bytes, advertised
_SLACK = 1 << 16  # an association request may be longer than data
_PDU_SECONDS = 60.0
_IN_MEMORY = 1 << 20
_LARGEST_OTHER = 8 << 20  # of a message that is no C-STORE
_MOST_WAITING = 4
_C_STORE_RQ = 0x0001


class Body(io.BytesIO):
    """The data set of one message: in memory, or from 1 MiB on in a file on its way in."""

    def __init__(self, begin: Callable[[], Incoming | None], largest: int):
        super().__init__()
        self._begin = begin
        self._largest = largest
        self.incoming: Incoming | None = None
        self.refused: Refused | None = None

    def write(self, piece: Any) -> int:
        """Take a piece; what cannot be held is dropped and `refused` says why."""
        if self.refused is None:
            try:
                self._take(piece)
            except Refused as refused:
                self.refused = refused
                self.discard()
        return len(piece)

    def _take(self, piece: bytes) -> None:
        if self.incoming is None:
            if self.tell() + len(piece) <= _IN_MEMORY:
                super().write(piece)
                return
            self.incoming = self._begin()
            if self.incoming is None:
                if self.tell() + len(piece) > _LARGEST_OTHER:
                    raise Refused(refusal.OUT_OF_RESOURCES, "the message is too large")
                super().write(piece)
                return
            self.incoming.write(self.getvalue())
            self._forget()
        self.incoming.write(piece)
        if self.incoming.size > self._largest:
            raise Refused(
                refusal.OUT_OF_RESOURCES, f"an instance may have {self._largest:,} bytes at most"
            )

    def arriving(self) -> Incoming:
        """Return the instance as a file on its way in; raises `Refused`."""
        if self.refused is not None:
            raise self.refused
        if self.incoming is None:
            begun = self._begin()
            if begun is None:
                raise Refused(refusal.PROCESSING_FAILURE, "the message is no C-STORE request")
            begun.write(self.getvalue())
            self._forget()
            return begun
        arriving, self.incoming = self.incoming, None
        return arriving

    def discard(self) -> None:
        """Remove what was written, unless it was taken."""
        if self.incoming is not None:
            self.incoming.discard()
            self.incoming = None
        self._forget()

    def _forget(self) -> None:
        self.seek(0)
        self.truncate()


class _Provider(DIMSEServiceProvider):
    """Turns what arrives into messages, each with a bounded body."""

    def __init__(self, association: Association, intake: Intake):
        super().__init__(association)
        self._intake = intake
        self._bodies: list[Body] = []
        self.stored: Counter[str] = Counter()  # study -> instances acknowledged

    def receive_primitive(self, primitive: Any) -> None:
        if self.msg_queue.qsize() > _MOST_WAITING:
            self.dul.event_queue.put("Evt19")  # no windows were negotiated: the peer must wait
            return
        if self.message is None:
            message = self.message = DIMSEMessage()
            message.data_set = Body(lambda: self._begun(message), self._intake.largest)
            self._bodies = [one for one in self._bodies if one.incoming is not None]
            self._bodies.append(message.data_set)
        super().receive_primitive(primitive)

    def close(self) -> None:
        """Remove the files of messages that were not completed, or not served."""
        for body in self._bodies:
            body.discard()

    def _begun(self, message: DIMSEMessage) -> Incoming | None:
        """Begin the instance of a C-STORE request; None for another message."""
        command, number = message.command_set, message.context_id
        context = self.assoc._accepted_cx.get(number) if number is not None else None
        if command.get("CommandField") != _C_STORE_RQ or context is None:
            return None
        return self._intake.begin(
            sop_class=str(command.get("AffectedSOPClassUID") or ""),
            sop_uid=str(command.get("AffectedSOPInstanceUID") or ""),
            transfer_syntax=str(context.transfer_syntax[0]),
        )


class _Socket(AssociationSocket):
    """Reads no PDU that is longer than advertised or takes longer than its time."""

    def recv(self, nr_bytes: int) -> bytearray:
        if nr_bytes > LONGEST_PDU + _SLACK:
            raise OSError(f"a PDU claims {nr_bytes:,} bytes")
        piece = bytearray(nr_bytes)
        view, have = memoryview(piece), 0
        end = time.monotonic() + _PDU_SECONDS
        while have < nr_bytes:
            count = self.socket.recv_into(view[have:])  # type: ignore[union-attr]
            if not count:
                break
            have += count
            if time.monotonic() > end:
                raise TimeoutError("a PDU takes too long")
        view.release()
        del piece[have:]
        return piece


class _Handler(RequestHandler):
    """Makes an association whose socket and messages are bounded."""

    def _create_association(self) -> Association:
        association = super()._create_association()
        server: Any = self.server
        association.dul.event_queue.get_nowait()  # each socket announces itself, and one is enough
        association.dul.socket = _Socket(association, client_socket=self.request)
        association.dimse = _Provider(association, server.intake)
        return association


class _Shared(list[Any]):
    """Contexts that every association reads and none changes: copying them takes 0.2 s."""

    def __deepcopy__(self, memo: Any) -> _Shared:
        return self


class Listener(ThreadedAssociationServer):
    """Listens for associations; connections beyond twice the allowed associations are closed."""

    request_queue_size = 256
    daemon_threads = True

    def __init__(self, *given: Any, intake: Intake, **named: Any):
        self.intake = intake
        super().__init__(*given, **{**named, "request_handler": _Handler})
        self.contexts = _Shared(self.contexts)

    def verify_request(self, request: Any, client_address: Any) -> bool:  # noqa: ARG002
        """Return whether a connection is taken at all."""
        return len(self.active_associations) < 2 * self.ae.maximum_associations

    def get_request(self) -> Any:
        """Accept a connection; its TLS handshake is its own thread's, not the listener's."""
        accepted, address = self.socket.accept()  # type: ignore[union-attr]
        accepted.settimeout(self.ae.network_timeout)
        if self.ssl_context:
            accepted = self.ssl_context.wrap_socket(
                accepted, server_side=True, do_handshake_on_connect=False
            )
        return accepted, address

    def shutdown(self) -> None:
        """Stop listening and abort what goes on."""
        socketserver.BaseServer.shutdown(self)
        self.server_close()
        for association in self.active_associations:
            association.abort()
