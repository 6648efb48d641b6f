# SPDX-License-Identifier: Apache-2.0
"""What turns images, and words where it learned them, into vectors of one space.

`Embedder.load("frozen")` is EfficientNet-Lite0 as its wheel brings it, at 224 pixels; of a run's
folder, what `vesalius train retrieve` made of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
import torch

from vesalius.errors import DataError
from vesalius.networks.efficientnet_lite import FEATURES
from vesalius.normalization import Normalizer
from vesalius.normalization.method import module_of
from vesalius.tasks.ahead import ahead
from vesalius.tasks.frozen import FrozenEncoder
from vesalius.tasks.retrieve.model import ImageModel, LastLevel
from vesalius.tasks.retrieve.prepared import Views
from vesalius.tasks.retrieve.similarity import places
from vesalius.tasks.views import make_views, on_image
from vesalius.types import Array, Json, PathLike, Progress

if TYPE_CHECKING:
    from vesalius.cohorts import Cohort
    from vesalius.volume import Volume

FROZEN = "frozen"
_INPUT: Json = {"size": 224, "slices": 8, "spatial_dims": 2, "channels": 3}
_IMAGES_AT_ONCE = 16


class WordsModel(Protocol):
    """What puts words into the space of the images."""

    def state_dict(self) -> dict[str, Any]:
        """Return its tensors."""

    def vectors(self, texts: Sequence[str]) -> Array:
        """Return `(n, dimension)` float32 of length one."""


@dataclass(frozen=True, slots=True)
class Vectors:
    """Vectors of images.

    Attributes:
        table: `(n, d)` float32 of length one; a row of NaN where an image could not be read.
        failures: key of such an image -> why.
    """

    table: Array
    failures: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Embedder:
    """Images and words -> vectors.

    Attributes:
        model: of images.
        decisions: of the plan; of these it needs `input`.
        normalizer: in front.
        identity: hashes of `weights`, `normalizer` and `plan`, the `encoder`'s name, `size`,
            `dimension`: vectors of two identities are not to be compared.
        source: the run's folder, or `frozen`.
        words_model: of words; None where it learned none.
    """

    model: ImageModel
    decisions: Json
    normalizer: Normalizer
    identity: Json
    source: str
    words_model: WordsModel | None = None

    @classmethod
    def load(cls, source: PathLike) -> Self:
        """Return the embedder of a finished run of `retrieve`, or the one named `frozen`.

        Raises:
            RunError: no such run, one of another task, or one that is not finished.
        """
        if str(source) == FROZEN:
            return cls._frozen()
        from vesalius.tasks.retrieve.saved import load_parts

        run, model, words = load_parts(Path(source))
        normalizer = run.normalizer()
        name = f"{run.task}-{run.id[:8]}"
        identity = _identity(name, run.id, model, words, normalizer, run.decisions["input"])
        return cls(model, run.decisions, normalizer, identity, str(run.path.absolute()), words)

    @classmethod
    def _frozen(cls) -> Self:
        spec = {
            "encoder": "efficientnet_lite0",
            "size": _INPUT["size"],
            "channels": _INPUT["channels"],
            "volumes": False,
            "mirror": False,
        }
        encoder = FrozenEncoder(spec, Path())
        model = ImageModel([encoder], LastLevel(encoder.features, FEATURES)).eval()
        normalizer = Normalizer(module_of("display").METHOD())
        identity = _identity(FROZEN, FROZEN, model, None, normalizer, _INPUT)
        return cls(model, {"input": _INPUT}, normalizer, identity, FROZEN)

    @property
    def dimension(self) -> int:
        """Numbers of a vector."""
        return int(self.model.head.dimension)

    def embed(
        self, cohort: Cohort, rows: Iterable[Json], progress: Progress | None = None
    ) -> Vectors:
        """Return the vectors of rows of a cohort; images are read while others are looked at.

        Args:
            cohort: of the rows.
            rows: with `key` and what `Cohort.read` needs.
            progress: called as `progress("embedding images", done, None)`.
        """

        def prepare(row: Json) -> tuple[str, Views | None, str]:
            try:
                return str(row["key"]), self.views(cohort.read(row)), ""
            except DataError as error:
                return str(row["key"]), None, str(getattr(error, "message", "") or error)

        failures: dict[str, str] = {}
        parts: list[Array] = []
        prepared = ahead(prepare, rows)
        done = 0
        while batch := list(islice(prepared, _IMAGES_AT_ONCE)):
            table = np.full((len(batch), self.dimension), np.nan, np.float32)
            read = [(place, views) for place, (_, views, _) in enumerate(batch) if views]
            if read:
                table[[place for place, _ in read]] = self.model.vectors([v for _, v in read])
            failures |= {key: why for key, views, why in batch if views is None}
            parts.append(table)
            done += len(batch)
            if progress is not None:
                progress("embedding images", done, None)
        empty = np.empty((0, self.dimension), np.float32)
        return Vectors(np.concatenate([empty, *parts]), failures)

    def embed_volumes(self, volumes: Sequence[Volume]) -> Array:
        """Return `(n, d)` float32 of length one.

        Raises:
            DataError: an image is empty, constant, not finite, or not what the run was made for.
        """
        prepared = [self.views(volume) for volume in volumes]
        parts = [
            self.model.vectors(prepared[start : start + _IMAGES_AT_ONCE])
            for start in range(0, len(prepared), _IMAGES_AT_ONCE)
        ]
        return np.concatenate([np.empty((0, self.dimension), np.float32), *parts])

    def of_features(self, features: Array) -> Array:
        """Return `(n, d)` float32 of length one of what the encoders say, `(n, features)`."""
        return self.model.of_features(torch.from_numpy(features))

    def frozen_part(self, features: Array) -> Array:
        """Return the frozen encoder's last level of what the encoders say, `(n, 1280)`."""
        first = int(self.model.encoders[0].features)  # type: ignore[arg-type]  # of every encoder
        return features[:, first - FEATURES : first]

    def views(self, volume: Volume) -> Views:
        """Return an image as the encoders see it.

        Raises:
            DataError: it is empty, constant, not finite, or not what the run was made for.
        """
        return Views(make_views(volume, self.decisions, self.normalizer))

    def words(self, texts: Sequence[str]) -> Array | None:
        """Return `(n, d)` of texts in the space of the images; None where none was learned."""
        return None if self.words_model is None else self.words_model.vectors(texts)

    def similarity_map(self, query: Volume, other: Volume) -> tuple[Array, Array]:
        """Return for each of two images which places make it like the other.

        Returns:
            Two arrays `(i, j, k)` float32 on the images' own grids, 0 to 1: 1 is the place of the
            two that gives most to the cosine of their vectors, 0 gives nothing or speaks against.

        Raises:
            DataError: an image cannot be prepared. UsageError: an encoder that has no maps.
        """
        prepared = [self.views(volume) for volume in (query, other)]
        vectors = self.model.vectors(prepared)
        found = []
        for one, volume, against in zip(prepared, (query, other), vectors[::-1], strict=True):
            maps = self.model.maps(torch.from_numpy(one.views.astype(np.float32)))
            heat = places(self.model.head, maps, against, self.decisions["input"]["size"])
            found.append(on_image(heat, volume, self.decisions, self.normalizer).clip(min=0))
        top = max(float(heat.max()) for heat in found) or 1.0
        return found[0] / top, found[1] / top


def _identity(
    name: str,
    plan: str,
    model: ImageModel,
    words: WordsModel | None,
    normalizer: Normalizer,
    shown: Json,
) -> Json:
    tensors: dict[str, Any] = dict(model.state_dict())
    if words is not None:
        tensors |= {f"words.{key}": value for key, value in words.state_dict().items()}
    total = hashlib.sha256()
    for key, value in sorted(tensors.items()):
        if ".encoder.head." in key:
            continue  # of classes: random, and not used
        total.update(key.encode())
        total.update(value.detach().cpu().contiguous().numpy().tobytes())
    record = json.dumps(normalizer.to_json(), sort_keys=True).encode()
    return {
        "encoder": name,
        "weights": total.hexdigest()[:16],
        "normalizer": hashlib.sha256(record).hexdigest()[:16],
        "plan": plan,
        "size": shown["size"],
        "dimension": int(model.head.dimension),
    }
