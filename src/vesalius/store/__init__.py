# SPDX-License-Identifier: Apache-2.0
"""Archives of vectors and words: what was acknowledged is on disk, what was deleted is gone."""
