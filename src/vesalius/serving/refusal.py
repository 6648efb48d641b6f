# SPDX-License-Identifier: Apache-2.0
"""Why an instance was not taken: in words for people, and as the numbers that senders expect."""

from __future__ import annotations

from vesalius.errors import VesaliusError

# C-STORE statuses (PS3.4 B.2.3); STOW-RS names the same ones as failure reasons (PS3.18 I.2.2)
OUT_OF_RESOURCES = 0xA700
MISMATCH = 0xA900  # the data set is not what was announced
CANNOT_UNDERSTAND = 0xC000
PROCESSING_FAILURE = 0x0110


class Refused(VesaliusError):
    """An instance is not taken. Nothing of it is kept, and its sender may send it again."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status
