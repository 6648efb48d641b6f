# SPDX-License-Identifier: Apache-2.0
"""Views: what the viewer loads of a study, made when first asked for and kept below `views/`.

```
views/<study>/<image>/0.nii.gz …, facts.json      of one series
views/<study>/<label map>/0.nii.gz …, facts.json  of one result, on its image's grid
```
A view is named by the content that it was made of: more of a series makes a new one. Views go with
their study, and the oldest make room where all together grow too large.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vesalius.errors import BudgetError, DataError
from vesalius.files import read_json
from vesalius.serving.page import convert
from vesalius.serving.page.aside import Aside
from vesalius.serving.state import State
from vesalius.serving.store import FILE, path_of
from vesalius.types import Json

MOST_KEPT = 8 << 30  # bytes of all views
DERIVED = ("SEG", "SR", "RTSTRUCT", "RTPLAN", "RTDOSE", "PR", "KO", "DOC", "REG")


class NotThere(DataError):
    """What was asked for is not held: answered with 404."""


@dataclass(frozen=True, slots=True)
class View:
    """Files of the viewer, and what is known of them."""

    folder: Path
    facts: Json

    def file(self, number: int) -> Path:
        """Return one of its files; raises `NotThere`."""
        path = self.folder / f"{number}.nii.gz"
        if number < 0 or not path.is_file():
            raise NotThere("the view has no such image")
        return path


class Images:
    """Makes and finds views of a state."""

    def __init__(self, state: State, aside: Aside, *, reserve: int = 0):
        """Prepare.

        Args:
            state: the state.
            aside: where conversion is done.
            reserve: bytes that the disk must keep free.
        """
        self._state = state
        self._aside = aside
        self._reserve = reserve
        self._root = state.folder / "views"

    def of_series(self, study_uid: str, series_uid: str) -> View:
        """Return the images of a series.

        Raises:
            NotThere: no such series is held. DataError: it cannot be shown, and why.
        """
        rows = self._state.connection().execute(
            "SELECT i.sha256, i.folder, s.modality, i.origin, i.transfer_syntax FROM instances i "
            "JOIN series s USING (study_uid, series_uid) WHERE i.study_uid = ? "
            "AND i.series_uid = ? AND NOT superseded ORDER BY i.number, i.sop_uid",
            (study_uid, series_uid),
        ).fetchall()  # fmt: skip
        if not rows or rows[0][2] in DERIVED:
            raise NotThere("no such series of images is held")
        files = [str(path_of(self._state, row[1], row[0])) for row in rows]
        name = content_name("image", series_uid, *sorted(row[0] for row in rows))
        _, _, modality, origin, suffix = rows[0]
        if origin == FILE:
            given = (files[0], suffix, modality or "")
            return self.made(study_uid, name, convert.convert_file, *given)
        return self.made(study_uid, name, convert.convert_images, files)

    def tidy(self) -> int:
        """Remove what belongs to no study of the state; returns how many studies' views went."""
        rows = self._state.connection().execute("SELECT study_uid FROM studies")
        held = {content_name("study", uid) for (uid,) in rows}
        gone = [one for one in self._root.glob("*") if one.name not in held]
        for folder in gone:
            shutil.rmtree(folder, ignore_errors=True)
        return len(gone)

    def made(
        self, study_uid: str, name: str, function: Callable[..., Json], *given: object
    ) -> View:
        """Return a view, made by `function(*given, folder)` where it is not there.

        Args:
            study_uid: that it belongs to.
            name: of the view, by its content.
            function: of a module, see `Aside.call`.
            given: to it.
        """
        folder = self._root / content_name("study", study_uid) / name
        facts = folder / convert.FACTS
        if not facts.is_file():
            if self._state.free_bytes() < self._reserve + convert.MOST_BYTES:
                raise BudgetError("the disk of the server is too full to show images")
            try:
                self._aside.call(function, *given, str(folder))
            except BaseException:
                if not facts.is_file():
                    shutil.rmtree(folder, ignore_errors=True)
                raise
            self._make_room(folder)
        facts.touch()
        return View(folder, read_json(facts))

    def _make_room(self, kept: Path) -> None:
        """Remove the views that were not looked at for longest, beyond what may be kept."""
        found = []
        for facts in self._root.glob(f"*/*/{convert.FACTS}"):
            size = sum(file.stat().st_size for file in facts.parent.iterdir())
            found.append((facts.stat().st_mtime, size, facts.parent))
        over = sum(size for _, size, _ in found) - MOST_KEPT
        for _, size, folder in sorted(found):
            if over <= 0:
                break
            if folder != kept:
                shutil.rmtree(folder, ignore_errors=True)
                over -= size


def content_name(*parts: str) -> str:
    """Return a folder's name that stands for `parts`."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
