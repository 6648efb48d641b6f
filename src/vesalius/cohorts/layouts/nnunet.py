# SPDX-License-Identifier: Apache-2.0
"""nnU-Net raw: `dataset.json`, `imagesTr/CASE_0000.nii.gz`, `labelsTr/CASE.nii.gz`, `imagesTs`.

Source: nnU-Net's documentation of its dataset format (v1 and v2). The channels of a case
(`_0000`, `_0001`, …) are one row with several files, in order: the row is what a segmenter reads.
Where dataset.json says how many there are, a case may lack some of them.
Cases of imagesTs are the official test split; those of imagesTr are `train` where the test cases
have labels (labelsTs) and unassigned otherwise, so that a test set can be cut from them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from vesalius.cohorts.index import Entry
from vesalius.cohorts.layouts.catalog import Catalog
from vesalius.cohorts.layouts.facts import Facts, Mask, Passed, joined, modality_of, tokens

_CHANNEL = re.compile(r"^(?P<case>.+)_(?P<channel>\d{4})(?P<suffix>(\.[A-Za-z0-9]+){1,2})$")
_FOLDERS = {"imagesTr": "labelsTr", "imagesTs": "labelsTs"}
_MOST_CHANNELS = 1000


@dataclass(frozen=True, slots=True)
class NnUnet:
    """One dataset below the folder of its dataset.json."""

    base: str
    channels: Mapping[str, str]
    labels: Mapping[str, str]
    tested: bool  # labelsTs is there
    suffix: str
    name: str = "nnU-Net"

    def describe(self, entry: Entry, catalog: Catalog) -> Facts | Mask | Passed:
        """Return the case at its first channel, whether a label has its case, or passed."""
        top = entry.folder[len(self.base) :].strip("/")
        if top in _FOLDERS.values():
            images = next(key for key, value in _FOLDERS.items() if value == top)
            case = entry.name[: -len(self._suffix_of(entry.name))]
            return Mask(self._first(case, images, catalog))
        match = _CHANNEL.match(entry.name)
        if top not in _FOLDERS or not match:
            return Passed()
        files = self._channels_of(entry.folder, match["case"], match["suffix"], catalog)
        if not files:
            return Facts()
        if entry.path != next(iter(files.values())):
            return Passed() if entry.path in files.values() else Facts()
        suffix = self.suffix or match["suffix"]
        mask = joined(self.base, _FOLDERS[top], match["case"] + suffix)
        names = [self.channels.get(str(number), "") for number in files]
        split = "test" if top == "imagesTs" else ("train" if self.tested else "")
        return Facts(
            files=tuple(files.values()),
            mask=mask if catalog.has_image(mask) else "",
            mask_names=self.labels,
            modality=modality_of([word for name in names for word in tokens(name)]),
            description=" | ".join(filter(None, names)),
            split=split,
        )

    def _channels_of(self, folder: str, case: str, suffix: str, catalog: Catalog) -> dict[int, str]:
        """Return the channels of a case that are there, number -> path, in order."""
        found: dict[int, str] = {}
        for number in range(len(self.channels) or _MOST_CHANNELS):
            path = joined(folder, f"{case}_{number:04d}{suffix}")
            if catalog.has_image(path):
                found[number] = path
            elif not self.channels:  # how many there should be is not said
                break
        return found

    def _suffix_of(self, name: str) -> str:
        if self.suffix and name.endswith(self.suffix):
            return self.suffix
        match = re.search(r"(\.nii)?\.[A-Za-z0-9]+$", name)
        return match[0] if match else ""

    def _first(self, case: str, images: str, catalog: Catalog) -> bool:
        folder = joined(self.base, images)
        suffixes = {m["suffix"] for name in catalog.sample(folder) if (m := _CHANNEL.match(name))}
        return any(self._channels_of(folder, case, suffix, catalog) for suffix in suffixes)


def find(catalog: Catalog) -> list[NnUnet]:
    """Return a layout for each dataset.json with numbered channels in imagesTr beside it."""
    found = []
    for entry in catalog.of_format("json"):
        if entry.name != "dataset.json":
            continue
        images = joined(entry.folder, "imagesTr")
        if not any(_CHANNEL.match(name) for name in catalog.sample(images)):
            continue
        info = catalog.read_json(entry.path)
        if not isinstance(info, dict):
            continue
        channels = info.get("channel_names") or info.get("modality") or {}
        tested = joined(entry.folder, "labelsTs") in catalog.folders
        suffix = str(info.get("file_ending") or "")
        found.append(
            NnUnet(
                entry.folder, text_map(channels), label_names(info.get("labels")), tested, suffix
            )
        )
    return found


def text_map(value: object) -> dict[str, str]:
    """Return a JSON object as text -> text, {} for anything else."""
    return {str(k): str(v) for k, v in value.items()} if isinstance(value, dict) else {}


def label_names(value: object) -> dict[str, str]:
    """Return `{"1": "liver"}` of `{"liver": 1}` (nnU-Net v2) or `{"1": "liver"}` (Decathlon).

    A region (a list of values) names each of its values that has no name of its own.
    """
    if not isinstance(value, dict):
        return {}
    named: dict[str, str] = {}
    regions: dict[str, str] = {}
    for key, item in value.items():
        if str(key).lstrip("-").isdigit():
            named[str(int(key))] = str(item)
        elif isinstance(item, int):
            named[str(item)] = str(key)
        elif isinstance(item, list):
            for one in item:
                regions.setdefault(str(one), str(key))
    return {k: v for k, v in {**regions, **named}.items() if k != "0" and k.isdigit()}
