# SPDX-License-Identifier: Apache-2.0
"""Boxes around objects of several classes in 2D images, and how many there are of each."""
