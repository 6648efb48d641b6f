# SPDX-License-Identifier: Apache-2.0
"""Reports and model cards: self-contained pages that show scores, images and findings."""

from __future__ import annotations

from vesalius.reporting.card import write_card
from vesalius.reporting.check import write_check
from vesalius.reporting.index import write_index
from vesalius.reporting.normalization import write_normalization
from vesalius.reporting.report import write_report

__all__ = ["write_card", "write_check", "write_index", "write_normalization", "write_report"]
