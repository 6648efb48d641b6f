# SPDX-License-Identifier: Apache-2.0
"""The columns of a cohort's tables: one row an image in `images`, one row a fact in `findings`.

Text that is unknown is "", a list that is unknown is empty, a number that is unknown is null.
Columns of `PIXELS` are null until a scan has read the pixels. A joined label becomes a column
`label_<name>` of its own type (text, integer, float or boolean).

| column | holds |
|---|---|
| key | 16 hexadecimal digits, pseudonymous, stable over rescans |
| root, files, member | short name of the data root, paths below it, entry inside a container |
| patient, patient_source | `p-…` and who said so: `dicom`, `path`, `labels` or `none` |
| study, series, site | `s-…`, `e-…`, `i-…`: pseudonyms |
| kind | `image`, `localizer`, `secondary-capture`, … |
| shape, spacing, affine | channels,i,j,k; millimeters along i,j,k; 16 numbers, RAS+, row by row |
| calibrated | whether the millimeters are real |
| bytes, file_hash | size on disk and SHA-256 of the files (of their hashes, when several) |
| phash, signature | what near-duplicates are found by, see `cohorts.assess`; patient data |
| split | the official split (`train`, `val`, `test`) or null |
| boxes | JSON list of `{"name", "x0", "y0", "x1", "y1"}` in pixels (i right, j down), or null |
| mask_names | JSON object: value of the mask to name of the structure, or null |
| findings | names; the details are in the table `findings` |
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

IMAGES = "images"
FINDINGS = "findings"
LABEL = "label_"

# column -> type; the order is that of the table
COLUMNS: dict[str, str] = {
    "key": "text",
    "format": "text",
    "root": "text",
    "files": "texts",
    "member": "text",
    "patient": "text",
    "patient_source": "text",
    "study": "text",
    "series": "text",
    "modality": "text",
    "body_part": "text",
    "laterality": "text",
    "view": "text",
    "plane": "text",
    "kind": "text",
    "scanner": "text",
    "site": "text",
    "description": "text",
    "words": "text",
    "shape": "integers",
    "spacing": "floats",
    "affine": "doubles",
    "dtype": "text",
    "calibrated": "boolean",
    "transfer_syntax": "text",
    "bytes": "integer",
    "file_hash": "text",
    "content_hash": "text",
    "phash": "integer",
    "signature": "bytes",
    "stat_min": "double",
    "stat_max": "double",
    "stat_mean": "double",
    "stat_std": "double",
    "stat_median": "double",
    "stat_mad": "double",
    "stat_p01": "double",
    "stat_p99": "double",
    "stat_snr": "double",
    "mask_files": "texts",
    "mask_member": "text",
    "mask_format": "text",
    "mask_names": "text",
    "boxes": "text",
    "split": "text",
    "findings": "texts",
}
PIXELS = (
    "content_hash",
    "phash",
    "signature",
    *(name for name in COLUMNS if name.startswith("stat_")),
)
NULL = {*PIXELS, "mask_names", "boxes", "split", "calibrated"}

FINDING_COLUMNS: dict[str, str] = {
    "key": "text",
    "name": "text",
    "severity": "text",
    "message": "text",
    "evidence": "text",  # JSON
    "root": "text",
    "file": "text",
    "slice": "integer",
}


def empty_row() -> dict[str, Any]:
    """Return a row in which nothing is known yet."""
    return {name: _nothing(name, kind) for name, kind in COLUMNS.items()}


def label_column(name: str) -> str:
    """Return the column that holds the label `name`: lower case, `_` for all but letters, digits.

    >>> label_column("Class label")
    'label_class_label'
    """
    plain = re.sub(r"[^0-9a-z]+", "_", name.strip().lower()).strip("_")
    return LABEL + (plain or "value")


def images_schema(labels: Mapping[str, str]) -> pa.Schema:
    """Return the Arrow schema of `images` with label columns `{column: type}` added."""
    return _schema({**COLUMNS, **labels})


def findings_schema() -> pa.Schema:
    """Return the Arrow schema of `findings`."""
    return _schema(FINDING_COLUMNS)


def _schema(columns: Mapping[str, str]) -> pa.Schema:
    import pyarrow as pa

    kinds = {
        "text": pa.string(),
        "texts": pa.list_(pa.string()),
        "bytes": pa.binary(),
        "integer": pa.int64(),
        "integers": pa.list_(pa.int32()),
        "floats": pa.list_(pa.float32()),
        "double": pa.float64(),
        "doubles": pa.list_(pa.float64()),
        "boolean": pa.bool_(),
    }
    return pa.schema([(name, kinds[kind]) for name, kind in columns.items()])


def _nothing(name: str, kind: str) -> Any:
    if name in NULL or kind in {"integer", "double", "boolean"}:
        return None
    return "" if kind == "text" else []
