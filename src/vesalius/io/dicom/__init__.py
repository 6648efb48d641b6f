# SPDX-License-Identifier: Apache-2.0
"""DICOM: headers, series sorted into stacks, stacks assembled into volumes."""
