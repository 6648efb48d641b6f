# SPDX-License-Identifier: Apache-2.0
"""Codes for segments: SNOMED CT for common structures, else a private code made from the name.

Values from DICOM PS3.16 context groups 4, 7159 and 7166. Whoever has better codes puts them into
`label_map.source.metadata["segments"][value]` as `category` and `type`.
"""

from __future__ import annotations

import hashlib
import re

Code = tuple[str, str, str]  # value, coding scheme, meaning

ANATOMY: Code = ("123037004", "SCT", "Anatomical Structure")
ABNORMAL: Code = ("49755003", "SCT", "Morphologically Abnormal Structure")

_ANATOMY = {
    "adrenal gland": "23451007",
    "aorta": "15825003",
    "bladder": "89837001",
    "bone": "272673000",
    "brain": "12738006",
    "colon": "71854001",
    "duodenum": "38848004",
    "esophagus": "32849002",
    "femur": "71341001",
    "gallbladder": "28231008",
    "heart": "80891009",
    "hippocampus": "5366008",
    "inferior vena cava": "64131007",
    "kidney": "64033007",
    "left kidney": "18639004",
    "left lung": "44029006",
    "left ventricle": "87878005",
    "liver": "10200004",
    "lung": "39607008",
    "pancreas": "15776009",
    "prostate": "41216001",
    "right kidney": "9846003",
    "right lung": "3341006",
    "spinal cord": "2748008",
    "spine": "421060004",
    "spleen": "78961009",
    "stomach": "69695003",
    "trachea": "44567001",
    "uterus": "35039007",
}
_ABNORMAL = {
    "cyst": "441457006",
    "edema": "79654002",
    "lesion": "52988006",
    "mass": "4147007",
    "necrosis": "6574001",
    "neoplasm": "108369006",
    "nodule": "27925004",
    "tumor": "108369006",
}


def codes_for(name: str) -> tuple[Code, Code]:
    """Return the category and type codes for a structure's name."""
    words = re.sub(r"[^a-z]+", " ", name.lower()).strip()
    swapped = re.sub(r"^(.*) (left|right)$", r"\2 \1", words)
    for known in (words, swapped):
        if known in _ANATOMY:
            return ANATOMY, (_ANATOMY[known], "SCT", known.capitalize())
        if known in _ABNORMAL:
            return ABNORMAL, (_ABNORMAL[known], "SCT", known.capitalize())
    private = hashlib.sha256(name.encode()).hexdigest()[:12].upper()
    return ANATOMY, (private, "99VESALIUS", name[:64] or "unnamed")
