# SPDX-License-Identifier: Apache-2.0
"""The last touch on a result object: identifiers that follow from the work, and what made it.

Writers give each object identifiers of chance. Here they become functions of the job's key, so that
the same work, done again after a crash, is the same object and never a second one. What made it
(run, plan, version) is stated as contributing equipment (PS3.3 C.12.1.5).
"""

from __future__ import annotations

import io
import struct
import warnings
from typing import TYPE_CHECKING, Any

from vesalius.serving.uids import made_uid
from vesalius.types import PathLike
from vesalius.version import __version__

if TYPE_CHECKING:
    from pydicom import Dataset

_TRACKING = "112040"  # Tracking Unique Identifier, a content item of reports
_FRESH = ("TrackingUID", "DimensionOrganizationUID")
_PROCESSING = ("109102", "DCM", "Processing Equipment")


def stamped(path: PathLike, *, key: str, which: str, made_by: str) -> Dataset:
    """Return a written result with its final identifiers.

    Args:
        path: of the DICOM file.
        key: of the job.
        which: name of the object among the job's, the same each time.
        made_by: the run, in short words.
    """
    from pydicom import dcmread
    from pydicom.dataset import Dataset

    data_set = dcmread(path)
    series = f"series {data_set.get('Modality', '')}"
    with warnings.catch_warnings():
        # What was copied from the source stays as it is.
        warnings.simplefilter("ignore")
        data_set.SOPInstanceUID = made_uid(key, "object", which)
        data_set.file_meta.MediaStorageSOPInstanceUID = data_set.SOPInstanceUID
        data_set.SeriesInstanceUID = made_uid(key, series)
        made: dict[str, str] = {}

        def remade(_: Any, element: Any) -> None:
            if element.keyword in _FRESH:
                old = str(element.value)
                element.value = made.setdefault(old, made_uid(key, which, str(len(made))))

        data_set.walk(remade)
        _restamp_tracking(data_set, key, which, made)
        item, purpose = Dataset(), Dataset()
        purpose.CodeValue, purpose.CodingSchemeDesignator, purpose.CodeMeaning = _PROCESSING
        item.PurposeOfReferenceCodeSequence = [purpose]
        item.Manufacturer, item.ManufacturerModelName = "Vesalius", made_by[:64]
        item.SoftwareVersions = __version__
        item.ContributionDescription = f"Applied by vesalius serve, job {key[:16]}"
        data_set.ContributingEquipmentSequence = [
            *(data_set.get("ContributingEquipmentSequence") or []),
            item,
        ]
    return data_set


def encoded(data_set: Dataset) -> bytes:
    """Return the data set as the bytes that follow a file's head, in its transfer syntax."""
    from pydicom import dcmwrite

    stream = io.BytesIO()
    dcmwrite(stream, data_set, enforce_file_format=True)
    whole = stream.getvalue()
    (length,) = struct.unpack_from("<I", whole, 140)  # (0002,0000), of the group's other elements
    return whole[144 + length :]


def _restamp_tracking(data_set: Dataset, key: str, which: str, made: dict[str, str]) -> None:
    """Give the tracking identifiers within a report's content their final values."""
    waiting = list(data_set.get("ContentSequence") or [])
    while waiting:
        item = waiting.pop(0)
        waiting += item.get("ContentSequence") or []
        names = item.get("ConceptNameCodeSequence") or []
        if names and names[0].get("CodeValue") == _TRACKING and "UID" in item:
            old = str(item.UID)
            item.UID = made.setdefault(old, made_uid(key, which, str(len(made))))
