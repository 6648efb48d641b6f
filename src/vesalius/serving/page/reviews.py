# SPDX-License-Identifier: Apache-2.0
"""What people said of results: accepted, corrected or rejected, why, and by whom.

A review is added and never changed; the latest of a result is what counts. The words of a comment
and the name of the reader are kept in the state; the audit log holds codes alone.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vesalius.errors import UsageError, did_you_mean
from vesalius.serving.page.images import NotThere
from vesalius.serving.state import State
from vesalius.types import Json

DECISIONS = ("accept", "edit", "reject")
# code -> what the page shows
REASONS = {
    "boundary": "the boundary is off",
    "missed": "something was missed",
    "false-find": "something is marked that is not there",
    "wrong-name": "the right place, the wrong name",
    "wrong-answer": "the answer is wrong",
    "image-quality": "the images are too poor",
    "wrong-images": "the wrong images were taken",
    "other": "another reason, see the comment",
}
_LONGEST = 2000  # characters of a comment


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """One person's word on one result.

    Attributes:
        study_uid, job: which result.
        object: SOP Instance UID of the label map that is meant, or its SHA-256 where it is no
            DICOM object; `` for a whole answer.
        decision: of `DECISIONS`.
        reasons: codes of `REASONS`; at least one where something is wrong.
        comment: free words; patient data.
        label: the right class, where a classifier's answer is corrected.
        mask: name of the drawn mask's file, where a label map is corrected.
        learn: train on it; an accepted result counts as labeled only where this is asked for.
        reader, name: the key, and its name.
        number: in the order of saying.
        at: seconds of the state's clock.
    """

    study_uid: str
    job: int
    decision: str
    object: str = ""
    reasons: Sequence[str] = ()
    comment: str = field(default="", repr=False)
    label: str = ""
    mask: str = ""
    learn: bool = False
    reader: str = ""
    name: str = ""
    number: int = 0
    at: float = 0.0

    def to_json(self) -> Json:
        """Return it for the page."""
        return {
            "number": self.number,
            "job": self.job,
            "object": self.object,
            "decision": self.decision,
            "reasons": list(self.reasons),
            "comment": self.comment,
            "label": self.label,
            "corrected": bool(self.mask),
            "learn": self.learn,
            "by": self.name,
            "at": self.at,
        }


class Reviews:
    """Reviews of a state."""

    def __init__(self, state: State):
        self._state = state
        self.folder = state.folder / "reviews"

    def add(self, review: Review) -> Review:
        """Keep a review, durably, and return it with its number.

        Raises:
            UsageError: it contradicts itself. NotThere: no such result.
        """
        self._check(review)
        now = self._state.clock.now()
        with self._state.transaction() as connection:
            number = connection.execute(
                "INSERT INTO reviews (study_uid, job, object, reader, name, decision, reasons, "
                "comment, label, mask, learn, at) VALUES (?,?,?,?,?,?,?,?,?,?,?,?)",
                (
                    review.study_uid, review.job, review.object, review.reader, review.name,
                    review.decision, json.dumps(list(review.reasons)), review.comment,
                    review.label, review.mask, int(review.learn), now,
                ),
            ).lastrowid  # fmt: skip
        return self._read("number = ?", (number,))[0]

    def of_study(self, study_uid: str) -> list[Review]:
        """Return all of a study, the latest last."""
        return self._read("study_uid = ?", (study_uid,))

    def latest(self, study_uid: str, job: int, sop_uid: str) -> Review | None:
        """Return what counts of a result."""
        found = self._read("study_uid = ? AND job = ? AND object = ?", (study_uid, job, sop_uid))
        return found[-1] if found else None

    def new_mask(self) -> str:
        """Return a name for a mask that somebody draws."""
        self.folder.mkdir(mode=0o700, exist_ok=True)
        return f"{secrets.token_hex(16)}.nii.gz"

    def mask_of(self, review: Review) -> Path:
        """Return the file of a review's mask; raises `NotThere`."""
        path = self.folder / review.mask
        if not review.mask or not path.is_file():
            raise NotThere("the review holds no mask")
        return path

    def tidy(self) -> int:
        """Remove masks that belong to no review; returns how many."""
        rows = self._state.connection().execute("SELECT mask FROM reviews WHERE mask != ''")
        kept = {name for (name,) in rows}
        gone = [one for one in self.folder.glob("*") if one.name not in kept]
        for path in gone:
            path.unlink()
        return len(gone)

    def _check(self, review: Review) -> None:
        if review.decision not in DECISIONS:
            raise UsageError(
                f"a decision is one of {', '.join(DECISIONS)}, got '{review.decision}'."
                f"{did_you_mean(review.decision, DECISIONS)}"
            )
        for one in review.reasons:
            if one not in REASONS:
                raise UsageError(
                    f"a reason is one of {', '.join(REASONS)}, got '{one}'."
                    f"{did_you_mean(one, list(REASONS))}"
                )
        if review.decision != "accept" and not review.reasons:
            raise UsageError("say why: give at least one reason")
        if len(review.comment) > _LONGEST:
            raise UsageError(f"a comment may have {_LONGEST:,} characters")
        corrected = bool(review.mask) != bool(review.label)
        if (review.decision == "edit") != corrected:
            raise UsageError(
                "'edit' comes with the mask that was drawn or the class that is right, and nothing "
                "else does"
            )
        row = self._state.connection().execute(
            "SELECT state, answer FROM jobs WHERE id = ? AND study_uid = ? AND kind = 'predict'",
            (review.job, review.study_uid),
        ).fetchone()  # fmt: skip
        if row is None or row[0] != "done":
            raise NotThere("no such result is held")
        answer = json.loads(row[1])
        held = [*answer.get("objects", []), *(one["sha256"] for one in answer.get("files", []))]
        if review.object and review.object not in held:
            raise NotThere("the result has no such label map")
        classes = list(answer.get("probabilities") or {})
        if review.label and review.label not in classes:
            raise UsageError(
                f"the class is one of {', '.join(classes) or 'none'}, got '{review.label}'."
                f"{did_you_mean(review.label, classes)}"
            )
        if review.mask:
            self.mask_of(review)

    def _read(self, condition: str, values: tuple[object, ...]) -> list[Review]:
        rows = self._state.connection().execute(
            "SELECT study_uid, job, decision, object, reasons, comment, label, mask, learn, "  # noqa: S608 - conditions of this file
            f"reader, name, number, at FROM reviews WHERE {condition} ORDER BY number",
            values,
        )
        return [
            Review(
                study_uid=study, job=job, decision=decision, object=sop, reasons=json.loads(why),
                comment=comment, label=label, mask=mask, learn=bool(learn), reader=reader,
                name=name, number=number, at=at,
            )
            for study, job, decision, sop, why, comment, label, mask, learn, reader, name, number,
            at in rows
        ]  # fmt: skip
