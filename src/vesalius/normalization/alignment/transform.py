# SPDX-License-Identifier: Apache-2.0
"""Transform: where each point of one image lies in another, and how far that is to be trusted.

q = M p: `matrix` maps a world point p of the fixed image to the point q of the moving image that
shows the same tissue; both in RAS+ millimeters, homogeneous. Declared laws: the inverse undoes it;
JSON gives back the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Self

import numpy as np

from vesalius.errors import RunError, UsageError
from vesalius.types import Affine, Array, Json

_FORMAT = 1


class Verdict(StrEnum):
    """What the self-check of a registration says."""

    PASSED = "passed"
    FLAGGED = "flagged"  # look at the picture before you use it


@dataclass(frozen=True, slots=True, eq=False)
class Transform:
    """An affine map from the fixed world to the moving world, RAS+ mm, with its evidence.

    Attributes:
        matrix: `(4, 4)` float64, fixed world -> moving world.
        kind: `identity`, `rigid` or `affine`.
        metric: mutual information of the images under it, in nats, bias-corrected.
        overlap: share of the smaller foreground that lies in the other image's foreground, 0 to 1.
        agreement_mm: mean distance between what independent starts found; 0 for `identity`.
        verdict: of the self-check.
        reasons: why it is flagged, in words.
        start: the start that won: `identity`, `centers` or `search`.
        iterations: steps of the optimizer that led here.
    """

    matrix: Affine
    kind: str = "identity"
    metric: float = 0.0
    overlap: float = 1.0
    agreement_mm: float = 0.0
    verdict: Verdict = Verdict.PASSED
    reasons: tuple[str, ...] = field(default_factory=tuple)
    start: str = "identity"
    iterations: int = 0

    def __post_init__(self) -> None:
        matrix = np.array(self.matrix, dtype=np.float64)
        if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
            raise UsageError(f"matrix must be finite of shape (4, 4), got shape {matrix.shape}")
        if (
            not np.allclose(matrix[3], (0, 0, 0, 1), rtol=0, atol=1e-12)
            or abs(np.linalg.det(matrix)) < 1e-9
        ):
            raise UsageError("matrix must be invertible with the last row 0 0 0 1")
        matrix[3] = 0, 0, 0, 1
        matrix.setflags(write=False)
        object.__setattr__(self, "matrix", matrix)

    def apply_to_points(self, points: Array) -> Array:
        """Return fixed world points `(n, 3)`, RAS+ mm, as moving world points `(n, 3)`."""
        mapped: Array = np.asarray(points) @ self.matrix[:3, :3].T + self.matrix[:3, 3]
        return mapped

    def inverse(self) -> Self:
        """Return the map from the moving world back to the fixed world, with the same evidence."""
        matrix: Affine = np.linalg.inv(self.matrix).astype(np.float64)
        return replace(self, matrix=matrix)

    def judged(self, verdict: Verdict, reasons: tuple[str, ...]) -> Self:
        """Return the same map with a verdict."""
        return replace(self, verdict=verdict, reasons=reasons)

    @property
    def rotation_degrees(self) -> float:
        """Angle of the rotation part (of the nearest rotation, where the map is affine)."""
        u, _, v = np.linalg.svd(self.matrix[:3, :3])
        return float(np.degrees(np.arccos(np.clip((np.trace(u @ v) - 1) / 2, -1, 1))))

    def to_json(self) -> Json:
        """Return all of it; `from_json` reads it back."""
        return {
            "format": _FORMAT,
            "maps": "fixed world -> moving world, RAS+ mm",
            "matrix": self.matrix.tolist(),
            "kind": self.kind,
            "metric_nats": self.metric,
            "overlap": self.overlap,
            "agreement_mm": self.agreement_mm,
            "verdict": str(self.verdict),
            "reasons": [*self.reasons],
            "start": self.start,
            "iterations": self.iterations,
        }

    @classmethod
    def from_json(cls, record: Json) -> Self:
        """Return the transform of a saved record.

        Raises:
            RunError: another format, or no transform at all.
        """
        if record.get("format") != _FORMAT or "matrix" not in record:
            raise RunError(
                f"a transform of format {_FORMAT} was expected, got format "
                f"{record.get('format')!r}; register again"
            )
        return cls(
            matrix=np.array(record["matrix"]),
            kind=record["kind"],
            metric=record["metric_nats"],
            overlap=record["overlap"],
            agreement_mm=record["agreement_mm"],
            verdict=Verdict(record["verdict"]),
            reasons=tuple(record["reasons"]),
            start=record["start"],
            iterations=record["iterations"],
        )
