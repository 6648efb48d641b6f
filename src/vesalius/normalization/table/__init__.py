# SPDX-License-Identifier: Apache-2.0
"""Harmonization of tables of features, or of co-registered voxels, across sites."""
