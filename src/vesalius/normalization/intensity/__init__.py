# SPDX-License-Identifier: Apache-2.0
"""Methods that solve one curve for each channel from the values in a mask; one a file."""
