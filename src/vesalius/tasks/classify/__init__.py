# SPDX-License-Identifier: Apache-2.0
"""Class probabilities of a case: an unordered set of images, any of them missing."""
