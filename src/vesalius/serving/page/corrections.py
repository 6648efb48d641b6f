# SPDX-License-Identifier: Apache-2.0
"""Corrected results as data to train on: folders that `vesalius scan` takes as they are.

```
corrections/<structures>/images/ct-0a1b….nii.gz    the image, on its own grid
corrections/<structures>/labels/ct-0a1b….nii.gz    the mask, with the structures' names
corrections/<target>/images/…                      of a classifier: the class is in cases.csv
corrections/…/cases.csv                            image, patient, modality, decision
```
Results of runs with the same structures share a folder, so that corrections of a run and of the one
that follows it add up. Patients and cases bear pseudonyms made with the state's own key; all images
of a patient bear the same, which keeps splits by patient. An image has one mask: the latest word on
it counts, and a result that is rejected later leaves the folder.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path

from vesalius.errors import UsageError
from vesalius.files import write_atomically, write_text
from vesalius.serving.audit import Audit
from vesalius.serving.page.images import Images, View
from vesalius.serving.page.labels import Labels
from vesalius.serving.page.reviews import Review, Reviews
from vesalius.serving.state import State
from vesalius.types import Json

_COLUMNS = ("image", "patient", "modality", "decision")
_LONGEST = 60  # characters of a folder's name


@dataclass(frozen=True, slots=True)
class _Case:
    """One image that is to be trained on, with its mask or its class."""

    name: str
    image: Path
    mask: Path | None
    facts: Json


class Corrections:
    """Keeps `corrections/` in step with the reviews."""

    def __init__(
        self, state: State, audit: Audit, images: Images, labels: Labels, reviews: Reviews
    ):
        self._state = state
        self._audit = audit
        self._images = images
        self._labels = labels
        self._reviews = reviews
        self._lock = threading.Lock()
        self.folder = state.folder / "corrections"

    def take(self, review: Review) -> int:
        """Bring the folders in step with a new review; returns how many images it adds or renews.

        Raises:
            UsageError: structures that overlap cannot be trained on from here. DataError: the
                images cannot be read any more.
        """
        if not (review.mask or review.label or (review.decision == "accept" and review.learn)):
            self._withdraw(review)
            return 0
        place, cases = self._wanted(review)
        with self._lock:
            for case in cases:
                image, mask = _files(self.folder / place, case.name)
                _copy(case.image, image)
                if case.mask is not None:
                    _copy(case.mask, mask)
                with self._state.transaction() as connection:
                    connection.execute(
                        "INSERT OR REPLACE INTO learned VALUES (?,?,?,?,?)",
                        (place, case.name, review.study_uid, review.number, json.dumps(case.facts)),
                    )
            if cases:
                self._write_table(place)
        return len(cases)

    def tidy(self) -> int:
        """Make the folders agree with the index; returns how many files were removed."""
        gone = 0
        with self._lock:
            for root in self.folder.glob("*"):
                rows = self._state.connection().execute(
                    "SELECT name FROM learned WHERE place = ?", (root.name,)
                )
                held = {name for (name,) in rows}
                for file in [*root.glob("images/*"), *root.glob("labels/*")]:
                    if file.name.removesuffix(".nii.gz") not in held:
                        file.unlink()
                        gone += 1
                self._write_table(root.name)
        return gone

    def _withdraw(self, review: Review) -> None:
        """Remove what earlier reviews of the same result brought."""
        same = (
            "FROM learned WHERE review IN (SELECT number FROM reviews WHERE study_uid = ? "
            "AND job = ? AND object = ?)"
        )
        of = (review.study_uid, review.job, review.object)
        with self._lock:
            found = self._state.connection().execute(f"SELECT place, name {same}", of).fetchall()
            with self._state.transaction() as connection:
                connection.execute(f"DELETE {same}", of)
            for place, name in found:
                for file in _files(self.folder / place, name):
                    file.unlink(missing_ok=True)
            for place in {place for place, _ in found}:
                self._write_table(place)

    def _wanted(self, review: Review) -> tuple[str, list[_Case]]:
        row = self._state.connection().execute(
            "SELECT j.subject, j.answer, s.patient_id FROM jobs j JOIN studies s USING (study_uid) "
            "WHERE j.id = ?",
            (review.job,),
        ).fetchone()  # fmt: skip
        subject, answer = json.loads(row[0]), json.loads(row[1])
        known = {
            "patient": self._pseudonym("patient", row[2] or review.study_uid),
            "decision": {"accept": "accepted", "edit": "corrected"}.get(review.decision, ""),
        }
        if subject["task"] == "segment":
            return self._segmented(review, known) if review.object else ("", [])
        return self._classified(review, subject, answer, known)

    def _segmented(self, review: Review, known: Json) -> tuple[str, list[_Case]]:
        on = self._labels.of(review.study_uid, review.object)
        if on.labels.facts["layers"] > 1:
            raise UsageError("structures that overlap cannot be trained on from the page")
        mask = self._reviews.mask_of(review) if review.mask else on.labels.file(0)
        place = _slug("-".join(on.labels.facts["names"].values()) or "nothing")
        return place, [self._case(on.image, on.number, mask, known)]

    def _classified(
        self, review: Review, subject: Json, answer: Json, known: Json
    ) -> tuple[str, list[_Case]]:
        target = str(answer.get("target") or "class")
        label = review.label or str(answer.get("predicted") or "")
        if not label:
            return "", []
        cases = []
        for series in subject["series"]:
            view = self._images.of_series(review.study_uid, series)
            facts = {**known, target: label}
            cases += [
                self._case(view, number, None, facts) for number in range(len(view.facts["images"]))
            ]
        return _slug(target), cases

    def _case(self, view: View, number: int, mask: Path | None, known: Json) -> _Case:
        modality = view.facts["images"][number]["modality"]
        name = self._pseudonym("image", f"{view.folder.name} {number}")
        name = f"{modality.lower()}-{name}" if modality else name
        facts = {"image": f"images/{name}.nii.gz", "modality": modality, **known}
        return _Case(name, view.file(number), mask, facts)

    def _pseudonym(self, kind: str, of: str) -> str:
        made = self._audit.pseudonym(f"{kind}\0{of}")[:16]
        return f"p-{made}" if kind == "patient" else made

    def _write_table(self, place: str) -> None:
        rows = self._state.connection().execute(
            "SELECT facts FROM learned WHERE place = ? ORDER BY name", (place,)
        )
        facts = [json.loads(row[0]) for row in rows]
        if not facts:
            shutil.rmtree(self.folder / place, ignore_errors=True)
            return
        more = sorted({name for one in facts for name in one} - set(_COLUMNS))
        text = io.StringIO()
        writer = csv.DictWriter(text, [*_COLUMNS, *more], lineterminator="\n")
        writer.writeheader()
        writer.writerows(facts)
        write_text(self.folder / place / "cases.csv", text.getvalue())


def _files(root: Path, name: str) -> tuple[Path, Path]:
    return root / "images" / f"{name}.nii.gz", root / "labels" / f"{name}.nii.gz"


def _copy(source: Path, target: Path) -> None:
    with open(source, "rb") as stream:
        write_atomically(target, lambda out: shutil.copyfileobj(stream, out))


def _slug(text: str) -> str:
    """Return a folder's name: readable, and its own even where it was cut."""
    plain = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "structures"
    if len(plain) <= _LONGEST and plain == text.lower().replace(" ", "-").replace("_", "-"):
        return plain
    return f"{plain[:_LONGEST]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
