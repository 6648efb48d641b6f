# SPDX-License-Identifier: Apache-2.0
"""Methods for stained slides: red, green and blue with a target's appearance; one a file."""
