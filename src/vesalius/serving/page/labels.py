# SPDX-License-Identifier: Apache-2.0
"""Label maps that runs made, each on the image that it was drawn on."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vesalius.serving import results
from vesalius.serving.page import convert, masks
from vesalius.serving.page.aside import Aside
from vesalius.serving.page.images import Images, NotThere, View, content_name
from vesalius.serving.state import State
from vesalius.serving.store import FILE, RESULT, path_of
from vesalius.types import Json

LABEL_MAPS = ("SEG", "RTSTRUCT")
_SHA256 = 64  # characters
_MOST_PLACES = 10_000


@dataclass(frozen=True, slots=True)
class Drawn:
    """A label map, and the image that it lies on: one of the images of a series."""

    labels: View
    image: View
    series: str
    number: int


class Labels:
    """Finds label maps of a state, and takes corrections of them."""

    def __init__(self, state: State, aside: Aside, images: Images):
        self._state = state
        self._aside = aside
        self._images = images
        self._places: dict[tuple[str, str, int], tuple[str, int]] = {}

    def of(self, study_uid: str, sop_uid: str) -> Drawn:
        """Return a result's label map with its image.

        Args:
            study_uid: of the study.
            sop_uid: of the label map; of one that is no DICOM object, its SHA-256.

        Raises: see `Images.of_series`.
        """
        if len(sop_uid) == _SHA256:
            file, series, number = self._drawn_file(study_uid, sop_uid)
            image = self._images.of_series(study_uid, series)
        else:
            file = self._label_map(study_uid, sop_uid)
            series, image, number = self._drawn_on(study_uid, file)
        name = content_name("labels", sop_uid, image.folder.name, str(number))
        source = str(image.file(number))
        found = self._images.made(study_uid, name, convert.convert_labels, str(file), source)
        return Drawn(found, image, series, number)

    def keep_mask(self, drawn: Path, on: Drawn, out: Path) -> Json:
        """Check what a person drew on an image and write it to `out`; see `masks.keep_mask`."""
        found: Json = self._aside.call(
            masks.keep_mask,
            str(drawn),
            str(on.image.file(on.number)),
            str(on.labels.file(0)),
            str(out),
        )
        return found

    def _label_map(self, study_uid: str, sop_uid: str) -> Path:
        row = self._state.connection().execute(
            "SELECT i.sha256, i.folder, s.modality FROM instances i JOIN series s "
            "USING (study_uid, series_uid) WHERE i.study_uid = ? AND i.sop_uid = ? "
            "AND NOT superseded AND origin = ?",
            (study_uid, sop_uid, RESULT),
        ).fetchone()  # fmt: skip
        if row is None or row[2] not in LABEL_MAPS:
            raise NotThere("no such label map is held")
        return path_of(self._state, row[1], row[0])

    def _drawn_file(self, study_uid: str, sha256: str) -> tuple[Path, str, int]:
        """Return a label map that is no DICOM object, its image's series, and the number there.

        A run names it by the number of its image, and takes images in the order of their names,
        which begin alike and go on with their content's hash (`worker.lay_out`).
        """
        connection = self._state.connection()
        row = connection.execute(
            "SELECT j.id, json_extract(f.value, '$.name'), "
            "json_extract(j.subject, '$.inputs'), json_extract(j.subject, '$.series') FROM jobs j, "
            "json_each(j.answer, '$.files') f WHERE j.study_uid = ? AND j.kind = 'predict' "
            "AND json_extract(f.value, '$.sha256') = ?",
            (study_uid, sha256),
        ).fetchone()
        found = None if row is None else results.find(self._state, row[0], row[1])
        number = "" if row is None else row[1].removesuffix(".nii.gz").rpartition("-")[2]
        if found is None or not row[1].endswith(".nii.gz") or not number.isdigit():
            raise NotThere("no such label map is held")
        inputs = sorted(json.loads(row[2]))
        if not 0 < int(number) <= len(inputs):
            raise NotThere("the image that the label map was drawn on is not held")
        series, origin = connection.execute(
            "SELECT series_uid, origin FROM instances WHERE sha256 = ?", (inputs[int(number) - 1],)
        ).fetchone()
        if origin == FILE:
            return found[0], series, 0
        if len(json.loads(row[3])) > 1:
            raise NotThere("which of several series the label map was drawn on is not known")
        return found[0], series, int(number) - 1

    def _drawn_on(self, study_uid: str, file: Path) -> tuple[str, View, int]:
        """Return the series that a label map was drawn on, its view, and the image's number."""
        (held,) = self._state.connection().execute(
            "SELECT received FROM studies WHERE study_uid = ?", (study_uid,)
        ).fetchone()  # fmt: skip
        key = (study_uid, file.name, held)
        if key not in self._places:
            if len(self._places) > _MOST_PLACES:
                self._places.clear()
            self._places[key] = self._find_place(study_uid, file)
        series, number = self._places[key]
        return series, self._images.of_series(study_uid, series), number

    def _find_place(self, study_uid: str, file: Path) -> tuple[str, int]:
        """Return the series whose instances a DICOM object names most, and the image of it."""
        sops = self._aside.call(referenced_instances, str(file))
        named: dict[str, str] = {}
        series: dict[str, int] = {}
        connection = self._state.connection()
        for start in range(0, len(sops), 500):
            some = sops[start : start + 500]
            for uid, sha256 in _instances(connection, study_uid, some):
                named[sha256] = uid
                series[uid] = series.get(uid, 0) + 1
        if not series:
            raise NotThere("the images that the label map was drawn on are not held")
        drawn_on = max(series, key=lambda uid: series[uid])
        view = self._images.of_series(study_uid, drawn_on)
        shares = [
            sum(name.removesuffix(".dcm") in named for name in image["files"])
            for image in view.facts["images"]
        ]
        return drawn_on, max(range(len(shares)), key=lambda number: shares[number])


def referenced_instances(file: str) -> list[str]:
    """Return the SOP Instance UIDs that a DICOM object names as what it was made of."""
    import pydicom

    data_set = pydicom.dcmread(file, stop_before_pixels=True)
    found: dict[str, None] = {}
    waiting = [data_set]
    while waiting:
        one = waiting.pop()
        uid = one.get("ReferencedSOPInstanceUID")
        if uid:
            found[str(uid)] = None
        waiting += [item for element in one if element.VR == "SQ" for item in element.value]
    return list(found)


def _instances(
    connection: sqlite3.Connection, study_uid: str, sops: Sequence[str]
) -> list[tuple[str, str]]:
    marks = ", ".join("?" * len(sops))
    rows = connection.execute(
        "SELECT series_uid, sha256 FROM instances WHERE study_uid = ? AND NOT superseded "  # noqa: S608 - question marks
        f"AND sop_uid IN ({marks})",
        (study_uid, *sops),
    )
    return [(str(uid), str(sha256)) for uid, sha256 in rows]
