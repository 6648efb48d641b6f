# SPDX-License-Identifier: Apache-2.0
"""Scores with intervals clustered by patient and their trivial baseline (law 8)."""

from __future__ import annotations

from vesalius.metrics.class_statistics import classification_statistics
from vesalius.metrics.classification import classification_scores, classification_summary
from vesalius.metrics.comparison import Difference, paired_differences
from vesalius.metrics.multilabel import (
    multilabel_scores,
    multilabel_statistics,
    multilabel_summary,
)
from vesalius.metrics.ordinal import ordinal_scores, ordinal_statistics, ordinal_summary
from vesalius.metrics.overlap import compare_masks, failed_masks
from vesalius.metrics.regression import (
    regression_scores,
    regression_statistics,
    regression_summary,
)
from vesalius.metrics.segmentation import (
    segmentation_scores,
    segmentation_statistics,
    segmentation_summary,
)

__all__ = [
    "Difference",
    "classification_scores",
    "classification_statistics",
    "classification_summary",
    "compare_masks",
    "failed_masks",
    "multilabel_scores",
    "multilabel_statistics",
    "multilabel_summary",
    "ordinal_scores",
    "ordinal_statistics",
    "ordinal_summary",
    "paired_differences",
    "regression_scores",
    "regression_statistics",
    "regression_summary",
    "segmentation_scores",
    "segmentation_statistics",
    "segmentation_summary",
]
