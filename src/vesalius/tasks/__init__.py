# SPDX-License-Identifier: Apache-2.0
"""What a model is for: each task plans from a fingerprint, fits, and predicts."""

import os

# Threads that wait for each other must sleep, not spin: beside any other work on the machine,
# spinning makes a training step several times slower. Read when torch loads its OpenMP library.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
