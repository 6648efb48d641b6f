# SPDX-License-Identifier: Apache-2.0
"""Runs as files that other software computes with: ONNX."""
