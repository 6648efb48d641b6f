# SPDX-License-Identifier: Apache-2.0
"""Corrections that need the grid: bias fields, slices, the MINC preset; one a file."""
