# SPDX-License-Identifier: Apache-2.0
"""Reads a cohort's images for the encoder and keeps a small picture of each on the way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vesalius.errors import DataError

if TYPE_CHECKING:
    from vesalius.cohorts import Cohort
    from vesalius.io.limits import Limits
    from vesalius.volume import Volume

WITHHELD = "burned-in-text-suspected"  # the finding of an image that may show a name (law 10)


class PicturingReader:
    """Reads as a cohort does; called from the threads that read ahead.

    Attributes:
        pictures: key -> JPEG of an image that was read and may be shown; taken by who stores it.
    """

    def __init__(self, cohort: Cohort, *, show_text: bool) -> None:
        """Read from `cohort`; with `show_text` also picture what may have text burned into it."""
        self.cohort = cohort
        self.show_text = show_text
        self.pictures: dict[str, bytes] = {}

    def read(self, row: Mapping[str, Any], *, limits: Limits | None = None) -> Volume:
        """Read the image of a row; raises what `Cohort.read` raises."""
        from vesalius.reporting.retrieval_pictures import thumbnail

        volume = self.cohort.read(row, limits=limits)
        if may_be_shown(row, show_text=self.show_text):
            try:
                self.pictures[str(row["key"])] = thumbnail(volume)
            except DataError:
                self.pictures[str(row["key"])] = b""  # it cannot be shown, and may be embedded
        return volume


def may_be_shown(row: Mapping[str, Any], *, show_text: bool) -> bool:
    """Return whether a picture of a row's image may be kept."""
    return show_text or WITHHELD not in (row.get("findings") or ())
