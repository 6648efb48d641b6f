# SPDX-License-Identifier: Apache-2.0
"""What `vesalius search` is made of: the declared parameters, a trial, what is measured of it."""
