# SPDX-License-Identifier: Apache-2.0
"""Intensity normalization: one method a file, and the record that a run keeps of it."""

from vesalius.normalization.normalizer import Normalizer

__all__ = ["Normalizer"]
