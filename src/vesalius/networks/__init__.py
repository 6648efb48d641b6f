# SPDX-License-Identifier: Apache-2.0
"""Networks by name: one architecture a file, built on demand from the table in `registry`."""

from vesalius.networks.registry import IMAGE_NETWORKS, NETWORKS, SEGMENTATION_NETWORKS, build

__all__ = ["IMAGE_NETWORKS", "NETWORKS", "SEGMENTATION_NETWORKS", "build"]
