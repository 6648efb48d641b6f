# SPDX-License-Identifier: Apache-2.0
"""The command line: arguments in, flow called, outcome printed."""
