# SPDX-License-Identifier: Apache-2.0
"""What the page lists: studies with the state of their work and reviews, and all of one study."""

from __future__ import annotations

import json
from typing import Any

from vesalius.serving.page.images import DERIVED, NotThere
from vesalius.serving.page.labels import LABEL_MAPS
from vesalius.serving.page.reviews import Reviews
from vesalius.serving.state import State
from vesalius.types import Json

STATES = ("receiving", "waiting", "working", "ready", "refused", "failed", "none", "reviewed")

# One state a study: the most urgent of what is known of it.
_ROWS = """
WITH work AS (
    SELECT study_uid, sum(state = 'leased') AS working, sum(state = 'ready') AS waiting,
        sum(state = 'failed') AS failed, sum(state = 'refused') AS refused,
        sum(state = 'done') AS done, max(CASE WHEN state = 'done' THEN id END) AS last
    FROM jobs WHERE kind = 'predict' GROUP BY study_uid
), said AS (
    SELECT study_uid, max(number) AS last FROM reviews GROUP BY study_uid
), kinds AS (
    SELECT study_uid, group_concat(DISTINCT modality) AS modalities FROM series
    WHERE coalesce(modality, '') NOT IN (SELECT value FROM json_each(?)) GROUP BY study_uid
), listed AS (
    SELECT s.study_uid AS study, s.patient_id, s.patient_name, s.birth_date, s.study_date,
        s.description, s.received, s.last_seen, kinds.modalities,
        CASE
            WHEN s.state = 'receiving' THEN 'receiving'
            WHEN work.working > 0 THEN 'working'
            WHEN work.waiting > 0 THEN 'waiting'
            WHEN said.last IS NOT NULL THEN 'reviewed'
            WHEN work.done > 0 THEN 'ready'
            WHEN work.failed > 0 THEN 'failed'
            WHEN work.refused > 0 THEN 'refused'
            ELSE 'none'
        END AS state,
        (SELECT decision FROM reviews WHERE number = said.last) AS decision,
        (SELECT name FROM reviews WHERE number = said.last) AS reader,
        (SELECT answer FROM jobs WHERE id = work.last) AS answer
    FROM studies s LEFT JOIN work USING (study_uid) LEFT JOIN said USING (study_uid)
        LEFT JOIN kinds USING (study_uid)
)
"""
_MATCHES = (
    "(? = '' OR state = ?) AND (? = '' OR instr(lower(coalesce(patient_id, '') || ' ' || "
    "coalesce(patient_name, '') || ' ' || coalesce(study_date, '') || ' ' || "
    "coalesce(description, '') || ' ' || coalesce(modalities, '')), lower(?)) > 0)"
)


def worklist(state: State, *, words: str = "", only: str = "", limit: int, offset: int) -> Json:
    """Return a part of the list, the latest first, and how many studies have which state.

    Args:
        state: the state.
        words: a part of patient, date, description or modality; any case.
        only: a state of `STATES`.
        limit, offset: the part.
    """
    derived = json.dumps(DERIVED)
    match = (only, only, words, words)
    connection = state.connection()
    rows = connection.execute(
        f"{_ROWS} SELECT study, patient_id, patient_name, birth_date, study_date, description, "  # noqa: S608 - texts of this file
        f"received, modalities, state, decision, reader, answer FROM listed WHERE {_MATCHES} "
        "ORDER BY last_seen DESC, study LIMIT ? OFFSET ?",
        (derived, *match, limit, offset),
    ).fetchall()
    counts = connection.execute(
        f"{_ROWS} SELECT state, count(*) FROM listed GROUP BY state",  # noqa: S608 - a text of this file
        (derived,),
    ).fetchall()
    matched = connection.execute(
        f"{_ROWS} SELECT count(*) FROM listed WHERE {_MATCHES}",  # noqa: S608 - texts of this file
        (derived, *match),
    ).fetchone()[0]
    names = ("study", "patient_id", "patient_name", "birth_date", "date", "description",
             "received", "modalities", "state", "decision", "reader")  # fmt: skip
    return {
        "studies": [
            {**dict(zip(names, row[:-1], strict=True)), "found": _in_short(row[-1])} for row in rows
        ],
        "counts": dict.fromkeys(STATES, 0) | dict(counts),
        "matched": matched,
    }


def study_view(state: State, reviews: Reviews, study_uid: str) -> Json:
    """Return all that the viewer shows of a study; raises `NotThere`."""
    connection = state.connection()
    row = connection.execute(
        "SELECT patient_id, patient_name, birth_date, sex, study_date, description, state, "
        "received FROM studies WHERE study_uid = ?",
        (study_uid,),
    ).fetchone()
    if row is None:
        raise NotThere("no such study is held")
    names = ("patient_id", "patient_name", "birth_date", "sex", "date", "description", "state",
             "received")  # fmt: skip
    return {
        "study": study_uid,
        **dict(zip(names, row, strict=True)),
        "series": _series(state, study_uid),
        "results": _results(state, study_uid),
        "reviews": [one.to_json() for one in reviews.of_study(study_uid)],
    }


def _series(state: State, study_uid: str) -> list[Json]:
    rows = state.connection().execute(
        "SELECT series_uid, s.number, description, modality, count(*) FROM series s "
        "JOIN instances i USING (study_uid, series_uid) WHERE study_uid = ? AND NOT superseded "
        "AND coalesce(modality, '') NOT IN (SELECT value FROM json_each(?)) AND origin != 'result' "
        "GROUP BY series_uid ORDER BY s.number, series_uid",
        (study_uid, json.dumps(DERIVED)),
    )
    names = ("series", "number", "description", "modality", "instances")
    return [dict(zip(names, row, strict=True)) for row in rows]


def _results(state: State, study_uid: str) -> list[Json]:
    connection = state.connection()
    rows = connection.execute(
        "SELECT id, state, subject, reason, answer, created, finished FROM jobs "
        "WHERE study_uid = ? AND kind = 'predict' ORDER BY id DESC",
        (study_uid,),
    ).fetchall()
    found = []
    for number, name, subject, reason, text, created, finished in rows:
        known, answer = json.loads(subject), json.loads(text)
        objects = [
            {"object": sop, "kind": kind, "label_map": kind in LABEL_MAPS}
            for sop in answer.pop("objects", [])
            if (kind := _modality_of(state, study_uid, sop))
        ]
        files = answer.pop("files", [])
        objects += [
            {"object": one["sha256"], "kind": one["name"], "label_map": True}
            for one in files
            if one["name"].endswith(".nii.gz")
        ]
        found.append(
            {
                "job": number,
                "state": name,
                "run": known["run_id"],
                "task": known["task"],
                "reason": reason,
                "answer": answer,
                "objects": objects,
                "files": [one["name"] for one in files],
                "series": known["series"],
                "created": created,
                "finished": finished,
            }
        )
    return found


def _modality_of(state: State, study_uid: str, sop_uid: str) -> str:
    row = state.connection().execute(
        "SELECT s.modality FROM instances i JOIN series s USING (study_uid, series_uid) "
        "WHERE i.study_uid = ? AND i.sop_uid = ?",
        (study_uid, sop_uid),
    ).fetchone()  # fmt: skip
    return str(row[0] or "") if row else ""


def _in_short(text: str | None) -> str:
    """Return a result in few words for the list."""
    answer: Any = json.loads(text or "{}")
    if answer.get("abstained"):
        return "abstained"
    if answer.get("predicted"):
        share = (answer.get("probabilities") or {}).get(answer["predicted"])
        return f"{answer['predicted']}{f' {share:.0%}' if share is not None else ''}"
    if answer.get("value") is not None:
        return f"{answer.get('target', 'value')} {answer['value']:.4g}"
    volumes = [one for one in answer.get("volumes_ml") or [] if isinstance(one, dict)]
    found = [f"{name} {value:.1f} ml" for one in volumes for name, value in one.items() if value]
    if volumes and not found:
        return "nothing found"
    return ", ".join(found[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else "")
