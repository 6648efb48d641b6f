# SPDX-License-Identifier: Apache-2.0
"""Normalization: one method a file, a certificate for each series, the record that a run keeps."""

from vesalius.normalization.certificate import Certificate, Verdict
from vesalius.normalization.ladder import certify
from vesalius.normalization.normalizer import Coverage, Normalizer
from vesalius.normalization.series import Settings

__all__ = ["Certificate", "Coverage", "Normalizer", "Settings", "Verdict", "certify"]
