# SPDX-License-Identifier: Apache-2.0
"""Fitting masks: which voxels a normalizer looks at, one rule a file, and which it is checked on.

>>> import numpy as np
>>> from vesalius.volume import Volume
>>> head = np.zeros((1, 24, 24, 24))
>>> head[:, 6:18, 6:18, 6:18] = np.arange(1000, 1000 + 12**3).reshape(12, 12, 12)
>>> fitting_mask(Volume(head, np.eye(4), modality="MR"))  # a cube with its edges rounded
Mask(mr-foreground, 24x24x24, 11.6 % inside)
"""

from vesalius.normalization.masks.choose import fitting_mask
from vesalius.normalization.masks.holdout import edges, holdout
from vesalius.normalization.masks.mask import Mask

__all__ = ["Mask", "edges", "fitting_mask", "holdout"]
