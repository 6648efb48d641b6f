# SPDX-License-Identifier: Apache-2.0
"""Label maps in the source's own geometry, from images of one or more channels, 2D or 3D."""
