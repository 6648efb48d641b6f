# SPDX-License-Identifier: Apache-2.0
"""Medical Segmentation Decathlon: `dataset.json` lists training pairs and test images.

Source: Antonelli et al., Nature Communications 2022. Channels are the fourth axis of one file.
Test images, whose labels are not published, are the official test split.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field

from vesalius.cohorts.index import Entry
from vesalius.cohorts.layouts.catalog import Catalog
from vesalius.cohorts.layouts.facts import Facts, Mask, Passed, joined, modality_of, tokens
from vesalius.cohorts.layouts.nnunet import label_names, text_map


@dataclass(frozen=True, slots=True)
class Decathlon:
    """One dataset: image path -> mask path (`` for none), and the rest of its dataset.json."""

    base: str
    masks: Mapping[str, str]
    images: Mapping[str, str]  # mask path -> image path
    test: frozenset[str]
    modality: str
    labels: Mapping[str, str]
    channels: tuple[str, ...] = ()
    name: str = field(default="Decathlon")

    def describe(self, entry: Entry, catalog: Catalog) -> Facts | Mask | Passed:
        """Return the image with its mask, or whether the label's image is there."""
        path = entry.path
        if path in self.images:
            return Mask(catalog.has_image(self.images[path]))
        mask = self.masks.get(path, "")
        return Facts(
            mask=mask if mask and catalog.has_image(mask) else "",
            mask_names=self.labels,
            modality=self.modality,
            description=" | ".join(self.channels),
            split="test" if path in self.test else "",
        )


def find(catalog: Catalog) -> list[Decathlon]:
    """Return a layout for each dataset.json that lists `training` pairs."""
    found = []
    for entry in catalog.of_format("json"):
        info = catalog.read_json(entry.path) if entry.name == "dataset.json" else None
        if not isinstance(info, dict) or not isinstance(info.get("training"), list):
            continue
        pairs = {}
        for case in info["training"]:
            if isinstance(case, dict) and isinstance(case.get("image"), str):
                mask = case.get("label")
                pairs[_place(entry.folder, case["image"])] = (
                    _place(entry.folder, mask) if isinstance(mask, str) else ""
                )
        listed = info.get("test") if isinstance(info.get("test"), list) else []
        test = [one.get("image") if isinstance(one, dict) else one for one in listed or []]
        channels = text_map(info.get("modality"))
        words = [word for name in channels.values() for word in tokens(name)]
        found.append(
            Decathlon(
                entry.folder,
                pairs,
                {mask: image for image, mask in pairs.items() if mask},
                frozenset(_place(entry.folder, one) for one in test if isinstance(one, str)),
                modality_of(words),
                label_names(info.get("labels")),
                tuple(channels.values()) if len(channels) > 1 else (),
            )
        )
    return found


def _place(base: str, path: str) -> str:
    return posixpath.normpath(joined(base, path.replace("\\", "/")))
