# SPDX-License-Identifier: Apache-2.0
"""What a segmenter learns: structures, each of some values of a mask, apart or overlapping.

Structures that are apart (classes) are learned by one softmax with the background. Where some
overlap (regions), each has an answer of its own, a sigmoid, and a voxel belongs to every structure
whose logit is above 0.

On the plan's grid a voxel's truth is one number, its *code*. Of classes: the structure's place in
the list, from 1 on, 0 for none, 255 for a voxel that is ignored. Of regions: bit n is set where
the voxel lies in structure n; bit 0 alone marks a voxel that is ignored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from vesalius.errors import DataError
from vesalius.types import Array, Json
from vesalius.volume import LabelMap

IGNORED = 255  # code of a voxel that is ignored, among classes
MOST_CLASSES = IGNORED - 1
MOST_REGIONS = 23  # codes are moved as 32-bit floats, which hold 24 bits


@dataclass(frozen=True, slots=True)
class Structures:
    """The structures of a plan.

    Attributes:
        sources: structure -> the values of a mask that make it up, in the order of the answer.
        values: what a label map that comes back holds for each.
        regions: whether they may overlap.
        ignored: values of a mask whose voxels count neither in training nor in scores.
    """

    sources: Mapping[str, Sequence[int]]
    values: Sequence[int]
    regions: bool = False
    ignored: Sequence[int] = ()

    @classmethod
    def of(cls, decisions: Json) -> Self:
        """Return those of a plan; one that names no `structures` learns one value each."""
        names, values = decisions["labels"], decisions["values"]
        plain = {name: [value] for name, value in zip(names, values, strict=True)}
        sources = decisions.get("structures", plain)
        return cls(
            {name: sources[name] for name in names},
            values,
            decisions.get("regions", False),
            decisions.get("ignore", []),
        )

    @property
    def layers(self) -> int:
        """Layers of a label map that comes back: one, or one a structure of regions."""
        return len(self.sources) if self.regions else 1

    @property
    def marked(self) -> list[int]:
        """All values of a mask that make up a structure."""
        return sorted({value for values in self.sources.values() for value in values})

    @property
    def code_dtype(self) -> np.dtype[np.unsignedinteger]:
        """The smallest type that holds a code."""
        bits = 1 + len(self.sources) if self.regions else 8
        return np.dtype(np.uint8 if bits <= 8 else np.uint16 if bits <= 16 else np.uint32)

    def encode(self, mask: LabelMap) -> Array:
        """Return the codes `(i, j, k)` of a mask, on its own grid; other values are background.

        Raises:
            DataError: two structures of one voxel, where they are to be apart.
        """
        out = np.zeros(mask.shape, self.code_dtype)
        for layer in mask.data:
            here = self._codes_of(layer)
            if self.regions:
                out |= here
                continue
            twice = (out != 0) & (here != 0) & (out != here)
            if twice.any():
                names = list(self.sources)
                one, other = names[out[twice][0] - 1], names[here[twice][0] - 1]
                raise DataError(
                    f"'{one}' and '{other}' overlap in the mask, and the plan takes them for "
                    "apart; draw them apart, or plan again with this mask among those of training"
                )
            out[here != 0] = here[here != 0]
        for layer in mask.data if self.ignored else ():
            out[_any_of(layer, self.ignored)] = 1 if self.regions else IGNORED
        return out

    def members(self, codes: Array, index: int) -> Array:
        """Return where structure `index`, counted from 1, lies; booleans of the codes' shape."""
        found: Array = codes & (1 << index) != 0 if self.regions else codes == index
        return found

    def ignores(self, codes: Array) -> Array:
        """Return where a voxel is ignored; booleans of the codes' shape."""
        found: Array = codes & 1 != 0 if self.regions else codes == IGNORED
        return found

    def places(self, codes: Array) -> Array:
        """Return `(layer, i, j, k)`: places of the structures in the list, from 1 on; 0: none."""
        if not self.regions:
            return np.where(codes == IGNORED, np.uint8(0), codes)[None]
        out = np.zeros((self.layers, *codes.shape), np.uint8)
        for index in range(1, 1 + len(out)):
            out[index - 1][self.members(codes, index)] = index
        return out

    def places_in(self, found: LabelMap) -> Array:
        """Return the same of a label map that came back, in which `values` stand for structures."""
        out = np.zeros(found.data.shape, np.uint8)
        for index, value in enumerate(self.values, 1):
            out[found.data == value] = index
        return out

    def _codes_of(self, layer: Array) -> Array:
        out = np.zeros(layer.shape, self.code_dtype)
        for index, values in enumerate(self.sources.values(), 1):
            inside = _any_of(layer, values)
            if self.regions:
                out[inside] |= 1 << index
            else:
                out[inside] = index
        return out


def answers(decisions: Json) -> int:
    """Return how many channels the network of a plan answers, the background's included."""
    return len(decisions["labels"]) + (0 if decisions.get("regions", False) else 1)


def _any_of(layer: Array, values: Sequence[int]) -> Array:
    """Return where a layer holds one of some values."""
    if len(values) == 1:
        return np.asarray(layer == values[0])
    return np.isin(layer, values)
