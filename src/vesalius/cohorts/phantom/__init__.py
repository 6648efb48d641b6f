# SPDX-License-Identifier: Apache-2.0
"""The phantom cohort: simulated patients with CT, MR and X-ray of one torso anatomy each.

Everything here is simulated and says so in its headers. The phantom feeds the demo and is the
tests' source of truth: each voxel, lesion and defect in it is known.
"""

from __future__ import annotations

from vesalius.cohorts.phantom.cohort import (
    Defect,
    PatientTruth,
    PhantomTruth,
    new_exam,
    write_phantom,
)
from vesalius.cohorts.phantom.exam import simulate_patient

__all__ = [
    "Defect",
    "PatientTruth",
    "PhantomTruth",
    "new_exam",
    "simulate_patient",
    "write_phantom",
]
