# SPDX-License-Identifier: Apache-2.0
"""QIDO-RS: which studies, series and instances are held (PS3.18 section 10.6), from the index."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vesalius.errors import UsageError
from vesalius.serving.state import State
from vesalius.types import Json

MOST = 1000  # answers at a time; ask for more with offset
_IGNORED = {"includefield", "fuzzymatching"}
# Images that are no DICOM are not answered for: see `upload`.
_IS_DICOM = "i.sop_class != ''"
_STUDY_HAS = (
    "EXISTS (SELECT 1 FROM instances i WHERE i.study_uid = s.study_uid AND i.sop_class != '')"
)
_SERIES_HAS = (
    "EXISTS (SELECT 1 FROM instances i WHERE i.study_uid = e.study_uid "
    "AND i.series_uid = e.series_uid AND i.sop_class != '')"
)
_MODALITIES = "(SELECT 1 FROM series m WHERE m.study_uid = s.study_uid AND m.modality = ?)"


@dataclass(frozen=True, slots=True)
class _Field:
    """One attribute: tag, VR, and the index's column; matched as text, range or exactly."""

    tag: str
    vr: str
    column: str
    match: str = ""  # text, date, exact, or empty where it is not matched


_STUDY = {
    "StudyDate": _Field("00080020", "DA", "s.study_date", "date"),
    "StudyTime": _Field("00080030", "TM", "s.study_time"),
    "AccessionNumber": _Field("00080050", "SH", "s.accession", "text"),
    "ReferringPhysicianName": _Field("00080090", "PN", "s.referring", "text"),
    "StudyDescription": _Field("00081030", "LO", "s.description", "text"),
    "PatientName": _Field("00100010", "PN", "s.patient_name", "text"),
    "PatientID": _Field("00100020", "LO", "s.patient_id", "text"),
    "PatientBirthDate": _Field("00100030", "DA", "s.birth_date", "date"),
    "PatientSex": _Field("00100040", "CS", "s.sex", "exact"),
    "StudyInstanceUID": _Field("0020000D", "UI", "s.study_uid", "exact"),
    "StudyID": _Field("00200010", "SH", "s.study_id", "text"),
}
_SERIES = {
    "Modality": _Field("00080060", "CS", "e.modality", "exact"),
    "SeriesDescription": _Field("0008103E", "LO", "e.description", "text"),
    "BodyPartExamined": _Field("00180015", "CS", "e.body_part", "exact"),
    "SeriesInstanceUID": _Field("0020000E", "UI", "e.series_uid", "exact"),
    "SeriesNumber": _Field("00200011", "IS", "e.number", "exact"),
}
_INSTANCE = {
    "SOPClassUID": _Field("00080016", "UI", "i.sop_class", "exact"),
    "SOPInstanceUID": _Field("00080018", "UI", "i.sop_uid", "exact"),
    "InstanceNumber": _Field("00200013", "IS", "i.number", "exact"),
    "NumberOfFrames": _Field("00280008", "IS", "i.frames"),
    "Rows": _Field("00280010", "US", "i.rows"),
    "Columns": _Field("00280011", "US", "i.columns"),
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What was found, and which parameters were not understood."""

    found: list[Json]
    ignored: list[str]


def studies(state: State, parameters: Iterable[tuple[str, str]], base: str) -> Answer:
    """Answer for studies; `parameters` are the URL's."""
    counts = (
        "(SELECT group_concat(DISTINCT e.modality) FROM series e WHERE e.study_uid = s.study_uid)",
        "(SELECT count(*) FROM series e WHERE e.study_uid = s.study_uid)",
        "(SELECT count(*) FROM instances i WHERE i.study_uid = s.study_uid AND NOT i.superseded)",
    )
    asked = _Asked(_STUDY, parameters)
    rows = asked.rows(
        state, counts, "studies s", "s.study_date DESC, s.study_uid", where=[_STUDY_HAS]
    )
    found = []
    for row in rows:
        *values, modalities, series, instances = row
        one = _json(_STUDY, values)
        one["00080061"] = _value("CS", *(sorted(filter(None, str(modalities or "").split(",")))))
        one["00201206"], one["00201208"] = _value("IS", series), _value("IS", instances)
        one["00081190"] = _value("UR", f"{base}/studies/{one['0020000D']['Value'][0]}")
        found.append(one)
    return Answer(found, asked.ignored)


def series(state: State, parameters: Iterable[tuple[str, str]], base: str) -> Answer:
    """Answer for series; the study, where the URL names it, is one of `parameters`."""
    fields = {**_SERIES, **_STUDY}
    count = (
        "(SELECT count(*) FROM instances i WHERE i.study_uid = e.study_uid "
        "AND i.series_uid = e.series_uid AND NOT i.superseded)"
    )
    asked = _Asked(fields, parameters)
    rows = asked.rows(
        state,
        (count,),
        "series e JOIN studies s USING (study_uid)",
        "s.study_uid, e.number, e.series_uid",
        where=[_SERIES_HAS],
    )
    found = []
    for *values, instances in rows:
        one = _json(fields, values)
        study, uid = one["0020000D"]["Value"][0], one["0020000E"]["Value"][0]
        one["00201209"] = _value("IS", instances)
        one["00081190"] = _value("UR", f"{base}/studies/{study}/series/{uid}")
        found.append(one)
    return Answer(found, asked.ignored)


def instances(state: State, parameters: Iterable[tuple[str, str]], base: str) -> Answer:
    """Answer for instances; study and series, where the URL names them, are of `parameters`."""
    fields = {**_INSTANCE, **_SERIES, **_STUDY}
    asked = _Asked(fields, parameters)
    rows = asked.rows(
        state,
        ("i.transfer_syntax",),
        "instances i JOIN series e USING (study_uid, series_uid) JOIN studies s USING (study_uid)",
        "s.study_uid, e.number, e.series_uid, i.number, i.sop_uid",
        where=["NOT i.superseded", _IS_DICOM],
    )
    found = []
    for *values, syntax in rows:
        one = _json(fields, values)
        study, uid = one["0020000D"]["Value"][0], one["0020000E"]["Value"][0]
        sop_uid = one["00080018"]["Value"][0]
        one["00083002"] = _value("UI", syntax)
        one["00081190"] = _value("UR", f"{base}/studies/{study}/series/{uid}/instances/{sop_uid}")
        found.append(one)
    return Answer(found, asked.ignored)


class _Asked:
    """A query's parameters as SQL conditions; values are always bound, never pasted."""

    def __init__(self, fields: dict[str, _Field], parameters: Iterable[tuple[str, str]]):
        self._fields = fields
        self._where: list[str] = []
        self._values: list[object] = []
        self.ignored: list[str] = []
        self._limit, self._offset = MOST, 0
        by_tag = {field.tag: name for name, field in fields.items()}
        for name, value in parameters:
            self._add(by_tag.get(name.upper(), name), value)

    def rows(
        self,
        state: State,
        more: Sequence[str],
        tables: str,
        order: str,
        *,
        where: Sequence[str] = (),
    ) -> list[tuple[object, ...]]:
        columns = ", ".join([*(field.column for field in self._fields.values()), *more])
        conditions = " AND ".join([*where, *self._where]) or "1"
        query = f"SELECT {columns} FROM {tables} WHERE {conditions} ORDER BY {order} "  # noqa: S608 - names of this file
        query += "LIMIT ? OFFSET ?"
        values = (*self._values, self._limit, self._offset)
        return state.connection().execute(query, values).fetchall()

    def _add(self, name: str, value: str) -> None:
        if name in ("limit", "offset"):
            if not value.isdigit() or len(value) > 9:
                raise UsageError(f"{name} must be a whole number from 0, got '{value[:20]}'")
            if name == "limit":
                self._limit = min(MOST, int(value))
            else:
                self._offset = int(value)
            return
        if name in ("ModalitiesInStudy", "00080061"):
            options = [one for one in value.replace("\\", ",").split(",") if one]
            if options:
                self._where.append(
                    "(" + " OR ".join(f"EXISTS {_MODALITIES}" for _ in options) + ")"
                )
                self._values += options
            return
        field = self._fields.get(name)
        if field is None or not field.match:
            if name not in _IGNORED:
                self.ignored.append(name[:40])
            return
        if value:
            self._match(field, value)

    def _match(self, field: _Field, value: str) -> None:
        if field.match == "date":
            first, dash, last = value.partition("-")
            self._where.append(f"{field.column} BETWEEN ? AND ?")
            self._values += [first or "0", (last or "99999999") if dash else first]
        elif field.vr == "UI":
            options = value.replace("\\", ",").split(",")[:MOST]
            self._where.append(f"{field.column} IN ({','.join('?' * len(options))})")
            self._values += options
        elif field.match == "text" and ("*" in value or "?" in value or field.vr == "PN"):
            pattern = value.replace("!", "!!").replace("%", "!%").replace("_", "!_")
            pattern = pattern.replace("*", "%").replace("?", "_")
            self._where.append(f"{field.column} LIKE ? ESCAPE '!'")
            self._values.append(pattern)
        else:
            self._where.append(f"{field.column} = ?")
            self._values.append(value)


def _json(fields: dict[str, _Field], values: Sequence[object]) -> Json:
    one: Json = {}
    for field, value in zip(fields.values(), values, strict=True):
        if value is None or value == "":
            one[field.tag] = {"vr": field.vr}
        elif field.vr == "PN":
            one[field.tag] = _value("PN", {"Alphabetic": value})
        else:
            one[field.tag] = _value(field.vr, value)
    return one


def _value(vr: str, *values: object) -> Json:
    return {"vr": vr, "Value": list(values)}
