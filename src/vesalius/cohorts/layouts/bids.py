# SPDX-License-Identifier: Apache-2.0
"""BIDS: `sub-01/ses-02/anat/sub-01_ses-02_T1w.nii.gz` (Gorgolewski et al., Scientific Data 2016).

The patient is the subject, the study the session; the suffix (`T1w`, `bold`, `ct`, `pet`, …) and
the entities become modality and description. Masks (`…_mask`, `…_dseg`, `label-…`), also below
`derivatives/`, belong to the image of the same subject, session and run whose other entities they
share; where there is a T1w, they are drawn on it. The JSON sidecar names the scanner.
"""

from __future__ import annotations

import re
from collections import defaultdict

from vesalius.cohorts.index import Entry
from vesalius.cohorts.layouts.catalog import Catalog
from vesalius.cohorts.layouts.facts import MODALITIES, Facts, Mask, Passed, joined, stem

_SUBJECT = re.compile(r"(^|/)sub-[A-Za-z0-9]+(/|$)")
_ENTITY = re.compile(r"^[a-zA-Z]+-[A-Za-z0-9+]+$")
_MASKS = frozenset({"mask", "dseg", "seg", "roi", "probseg"})
_MASK_ONLY = frozenset({"label", "desc", "space", "res", "seg", "atlas"})


class Bids:
    """One BIDS dataset, with its derivatives, below `base`."""

    name = "BIDS"

    def __init__(self, base: str, catalog: Catalog) -> None:
        self.base = base
        self._of_subject: dict[str, list[str]] = defaultdict(list)
        self._derived: dict[str, list[str]] = defaultdict(list)  # `sub-01/anat` -> folders
        for folder in catalog.folders:
            match = _SUBJECT.search(folder)
            if match is None:
                continue
            tail = folder[match.start() :].strip("/")
            self._of_subject[tail.split("/")[0]].append(folder)
            if "derivatives" in folder.split("/"):
                self._derived[tail].append(folder)

    def describe(self, entry: Entry, catalog: Catalog) -> Facts | Mask | Passed:
        """Return the image with what its entities tell, or whether the mask has an image."""
        entities, suffix = _entities(entry.name)
        if suffix in _MASKS:
            return Mask(self._image_of(entities, catalog) != "")
        sidecar = catalog.read_json(joined(entry.folder, stem(entry.name) + ".json"))
        info = sidecar if isinstance(sidecar, dict) else {}
        scanner = [str(info.get(k) or "") for k in ("Manufacturer", "ManufacturersModelName")]
        datatype = entry.folder.rpartition("/")[2]
        word = suffix.lower()
        told = [f"{key}-{value}" for key, value in entities.items() if key not in ("sub", "ses")]
        return Facts(
            patient=f"sub-{entities['sub']}" if "sub" in entities else "",
            study=(entities.get("sub", ""), entities["ses"]) if "ses" in entities else (),
            modality=MODALITIES.get(word)
            or ("MR" if datatype in ("anat", "func", "dwi", "fmap", "perf") else ""),
            description=" ".join([suffix, *told]),
            scanner="|".join(filter(None, scanner)),
            mask=self._mask_of(entry, entities, suffix, catalog),
        )

    def _mask_of(
        self, entry: Entry, entities: dict[str, str], suffix: str, catalog: Catalog
    ) -> str:
        """Return the mask that shares most entities with an image; a T1w's neighbors get none."""
        if suffix != "T1w" and any(
            _entities(name)[1] == "T1w" for name in catalog.sample(entry.folder)
        ):
            return ""
        best: tuple[int, str] = (0, "")
        for folder in [entry.folder, *self._derived[entry.folder[len(self.base) :].strip("/")]]:
            for name in catalog.sample(folder):
                other, kind = _entities(name)
                shared = {k: v for k, v in other.items() if k not in _MASK_ONLY}
                if kind in _MASKS and all(entities.get(k) == v for k, v in shared.items()):
                    best = max(best, (len(shared), joined(folder, name)), key=lambda b: b[0])
        return best[1]

    def _image_of(self, entities: dict[str, str], catalog: Catalog) -> str:
        shared = {k: v for k, v in entities.items() if k not in _MASK_ONLY}
        for folder in self._of_subject[f"sub-{entities.get('sub')}"]:
            for name in catalog.sample(folder):
                other, kind = _entities(name)
                if kind not in _MASKS and all(other.get(k) == v for k, v in shared.items()):
                    return joined(folder, name)
        return ""


def find(catalog: Catalog) -> list[Bids]:
    """Return a layout for each folder that holds subjects with BIDS names."""
    bases = set()
    for folder in catalog.folders:
        match = _SUBJECT.search(folder)
        if not match:
            continue
        base = folder[: match.start()].strip("/")
        if base in bases or "derivatives" in base.split("/"):
            continue
        names = catalog.sample(folder)
        if any("sub" in _entities(name)[0] for name in names):
            bases.add(base)
    return [Bids(base, catalog) for base in sorted(bases)]


def _entities(name: str) -> tuple[dict[str, str], str]:
    """Return the entities and the suffix of a file name; no entity when it is no BIDS name."""
    *pairs, suffix = stem(name).split("_")
    if not pairs or not all(_ENTITY.match(pair) for pair in pairs):
        return {}, suffix
    return dict(pair.split("-", 1) for pair in pairs), suffix
