# SPDX-License-Identifier: Apache-2.0
"""All that the page works with on one server, made once and closed with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from vesalius.errors import UsageError
from vesalius.serving.audit import Audit
from vesalius.serving.page.aside import Aside
from vesalius.serving.page.corrections import Corrections
from vesalius.serving.page.images import Images
from vesalius.serving.page.labels import Labels
from vesalius.serving.page.reviews import Reviews
from vesalius.serving.state import State
from vesalius.serving.worker import lay_out
from vesalius.types import Json

# (archive, folder of an exam or nothing, words, how many, weight of words) -> what is like it,
# without paths or patients
Similar = Callable[[str, str, str, int, float], Json]
_SIMILAR_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Archive:
    """Where similar cases are looked for: the archive's folder, and what looks there."""

    folder: Path
    find: Similar


class Desk:
    """The page's parts."""

    def __init__(
        self, state: State, audit: Audit, *, archive: Archive | None = None, reserve: int = 0
    ):
        """Make them and remove what nothing refers to any more.

        Args:
            state: the state.
            audit: its log.
            archive: of similar cases; none: the page does not offer them.
            reserve: bytes that the disk must keep free.
        """
        self._state = state
        self._archive = archive
        self._aside = Aside()
        self._searching = Aside(seconds=_SIMILAR_SECONDS, idle_seconds=600.0)
        self.images = Images(state, self._aside, reserve=reserve)
        self.labels = Labels(state, self._aside, self.images)
        self.reviews = Reviews(state)
        self.corrections = Corrections(state, audit, self.images, self.labels, self.reviews)
        self.images.tidy()
        self.reviews.tidy()
        self.corrections.tidy()

    @property
    def has_archive(self) -> bool:
        """Whether similar cases can be looked for."""
        return self._archive is not None

    def similar(
        self, study_uid: str, series_uid: str, *, words: str, count: int, balance: float
    ) -> Json:
        """Return the cases of the archive that are like a series, words, or both.

        Raises:
            UsageError: there is no archive, or nothing to look for.
            DataError, RunError, BudgetError: of the search.
        """
        if self._archive is None:
            raise UsageError("this server has no archive; start it with --archive")
        rows = self._state.connection().execute(
            "SELECT sha256 FROM instances WHERE study_uid = ? AND series_uid = ? "
            "AND NOT superseded",
            (study_uid, series_uid),
        ).fetchall()  # fmt: skip
        if not rows and not words.strip():
            raise UsageError("give a series, words, or both")
        archive = self._archive
        with TemporaryDirectory() as folder:
            exam = Path(folder)
            lay_out(self._state, [row[0] for row in rows], exam)
            found: Json = self._searching.call(
                archive.find, str(archive.folder), folder if rows else "", words, count, balance
            )
        return found

    def close(self) -> None:
        """End the processes beside the server."""
        self._aside.close()
        self._searching.close()
