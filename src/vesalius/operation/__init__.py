# SPDX-License-Identifier: Apache-2.0
"""The verbs of a running server, where serving meets the flows that it applies: one file each."""
