# SPDX-License-Identifier: Apache-2.0
"""Scores with intervals clustered by patient and their trivial baseline (law 8)."""

from __future__ import annotations

from vesalius.metrics.classification import classification_scores, classification_summary
from vesalius.metrics.overlap import (
    compare_masks,
    failed_masks,
    segmentation_scores,
    segmentation_summary,
)

__all__ = [
    "classification_scores",
    "classification_summary",
    "compare_masks",
    "failed_masks",
    "segmentation_scores",
    "segmentation_summary",
]
