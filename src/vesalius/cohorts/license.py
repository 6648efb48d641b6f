# SPDX-License-Identifier: Apache-2.0
"""The license of the data as the data state it: a field of a description, or a license file."""

from __future__ import annotations

import re
from pathlib import Path

from vesalius.cohorts.index import Index, to_name
from vesalius.cohorts.layouts.catalog import Catalog

_FIELDS = ("licence", "license", "License", "Licence")
_DESCRIPTIONS = ("dataset.json", "dataset_description.json", "datapackage.json")
_FILES = re.compile(r"^(licen[sc]e|copying)([-_.].*)?$", re.IGNORECASE)
_KNOWN = {  # a phrase of the license's text -> its short name
    "Apache License": "Apache-2.0",
    "MIT License": "MIT",
    "Attribution-NonCommercial-ShareAlike 4.0": "CC BY-NC-SA 4.0",
    "Attribution-NonCommercial-NoDerivatives 4.0": "CC BY-NC-ND 4.0",
    "Attribution-NonCommercial 4.0": "CC BY-NC 4.0",
    "Attribution-ShareAlike 4.0": "CC BY-SA 4.0",
    "Attribution 4.0 International": "CC BY 4.0",
    "Attribution 3.0": "CC BY 3.0",
    "CC0 1.0": "CC0 1.0",
    "GNU GENERAL PUBLIC LICENSE": "GPL",
    "Redistribution and use in source and binary forms": "BSD",
}
_HEAD = 20_000


def stated_license(index: Index) -> str:
    """Return what the data roots state, several statements joined by `; `, `` when none does.

    Descriptions (`dataset.json` and the like, field `licence` or `license`) come first; else files
    named LICENSE or COPYING, by the license they hold or else by their first line.
    """
    found: list[str] = []
    for root in index.roots():
        catalog = Catalog(index, root)
        texts: list[str] = []
        for entry in catalog.of_format("json"):
            info = catalog.read_json(entry.path) if entry.name in _DESCRIPTIONS else None
            if isinstance(info, dict):
                texts += [str(info[key]).strip() for key in _FIELDS if info.get(key)]
        if not texts:
            texts = [
                _named(Path(catalog.path, to_name(entry.path)))
                for entry in catalog.of_format("text")
                if _FILES.match(entry.name)
            ]
        found += [text[:200] for text in texts if text]
    return "; ".join(dict.fromkeys(found))


def _named(path: Path) -> str:
    try:
        text = path.read_bytes()[:_HEAD].decode("utf-8", "replace")
    except OSError:
        return ""
    flat = " ".join(text.split())
    for phrase, name in _KNOWN.items():
        if phrase.lower() in flat.lower():
            return name
    return next((line.strip() for line in text.splitlines() if line.strip()), "")
