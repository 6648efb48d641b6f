# SPDX-License-Identifier: Apache-2.0
"""Training by steps: loss, augmentation, schedule, checkpoint and the loop that joins them."""
