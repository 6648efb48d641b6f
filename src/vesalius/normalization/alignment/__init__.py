# SPDX-License-Identifier: Apache-2.0
"""The parts of a registration: poses, pyramid, mutual information, refinement, self-check."""
