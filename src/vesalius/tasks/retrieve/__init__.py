# SPDX-License-Identifier: Apache-2.0
"""Finding similar cases, by image, by words or by both: learning to embed, and searching."""
