# SPDX-License-Identifier: Apache-2.0
"""Timed and scored scripts that write JSON; never imported by the package."""
