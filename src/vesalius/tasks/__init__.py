# SPDX-License-Identifier: Apache-2.0
"""What a model is for: each task plans from a fingerprint, fits, and predicts."""
