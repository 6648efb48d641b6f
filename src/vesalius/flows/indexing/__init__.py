# SPDX-License-Identifier: Apache-2.0
"""What `vesalius index` stands on: a cohort's rows as an archive's entries, and its folder."""
