# SPDX-License-Identifier: Apache-2.0
"""One exam answered by a run: `segmentation` writes label maps, `classification` an answer."""
