# SPDX-License-Identifier: Apache-2.0
"""Storage commitment (PS3.4 annex J): which instances are held, said after it was looked up.

The report goes over a new association where the peer's address is known, and else over the one
that it was asked on.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vesalius.serving import refusal
from vesalius.serving.refusal import Refused
from vesalius.serving.state import State
from vesalius.serving.store import path_of
from vesalius.serving.uids import is_uid

_LOG = logging.getLogger(__name__)
PUSH_MODEL = "1.2.840.10008.1.20.1"
_PUSH_MODEL_INSTANCE = "1.2.840.10008.1.20.1.1"
_ALL_HELD, _SOME_MISSING = 1, 2  # event type IDs (PS3.4 J.3.3)
_NO_SUCH_INSTANCE, _CLASS_CONFLICT = 0x0112, 0x0119  # failure reasons (PS3.3 C.14.1.1)
_MOST = 10_000
_TRIES = 4


@dataclass(frozen=True, slots=True)
class Asked:
    """A request: the transaction, and pairs of SOP class and SOP instance."""

    transaction: str
    instances: Sequence[tuple[str, str]]


def asked(information: Any) -> Asked:
    """Read the data set of an N-ACTION request; raises `Refused` where it is none."""
    transaction = str(information.get("TransactionUID") or "")
    items = information.get("ReferencedSOPSequence") or []
    pairs = [
        (str(item.get("ReferencedSOPClassUID") or ""), str(item.get("ReferencedSOPInstanceUID")))
        for item in items
    ]
    if not is_uid(transaction) or not pairs or len(pairs) > _MOST:
        raise Refused(
            refusal.PROCESSING_FAILURE, f"give a transaction UID and 1 to {_MOST} instances"
        )
    return Asked(transaction, pairs)


def report(state: State, request: Asked) -> Any:
    """Return the data set of the N-EVENT-REPORT: what is held, and what is not and why."""
    from pydicom.dataset import Dataset

    held: list[Dataset] = []
    failed: list[Dataset] = []
    for sop_class, sop_uid in request.instances:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, sop_uid
        reason = _reason(state, sop_class, sop_uid)
        if reason:
            item.FailureReason = reason
        (failed if reason else held).append(item)
    answer = Dataset()
    answer.TransactionUID = request.transaction
    if held:
        answer.ReferencedSOPSequence = held
    if failed:
        answer.FailedSOPSequence = failed
    return answer


def deliver(association: Any, answer: Any, peer: tuple[str, int] | None, title: str) -> None:
    """Send the report in a thread of its own, after the request has been answered."""
    called = str(association.requestor.ae_title).strip()

    def sent() -> None:
        for attempt in range(_TRIES):
            time.sleep(0.2 * 4**attempt)
            try:
                if peer is None:
                    done = _send(association, answer)
                else:
                    done = _send_to(peer, title, called, answer)
            except (ValueError, RuntimeError, OSError) as error:
                _LOG.warning("a commitment report failed: %s", type(error).__name__)
                done = False
            if done or (peer is None and not association.is_established):
                break
        if not done:
            _LOG.warning("a commitment report could not be delivered")

    threading.Thread(target=sent, name="commitment", daemon=True).start()


def _send(association: Any, answer: Any) -> bool:
    if not association.is_established:
        return False
    kind = _SOME_MISSING if "FailedSOPSequence" in answer else _ALL_HELD
    status, _ = association.send_n_event_report(answer, kind, PUSH_MODEL, _PUSH_MODEL_INSTANCE)
    return bool(status) and status.Status == 0x0000


def _send_to(peer: tuple[str, int], title: str, called: str, answer: Any) -> bool:
    from pynetdicom import AE, build_role

    entity = AE(title)
    entity.add_requested_context(PUSH_MODEL)
    role = build_role(PUSH_MODEL, scp_role=True)
    association = entity.associate(*peer, ae_title=called, ext_neg=[role])
    try:
        return _send(association, answer)
    finally:
        if association.is_established:
            association.release()


def _reason(state: State, sop_class: str, sop_uid: str) -> int:
    """Return why an instance is not held, or 0."""
    row = state.connection().execute(
        "SELECT folder, sha256, size, sop_class FROM instances WHERE sop_uid = ? "
        "AND NOT superseded",
        (sop_uid,),
    ).fetchone()  # fmt: skip
    if row is None:
        return _NO_SUCH_INSTANCE
    folder, sha256, size, held_class = row
    path = path_of(state, folder, sha256)
    if not path.is_file() or path.stat().st_size != size:
        return _NO_SUCH_INSTANCE
    return 0 if held_class == sop_class else _CLASS_CONFLICT
