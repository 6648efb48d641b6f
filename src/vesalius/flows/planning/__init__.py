# SPDX-License-Identifier: Apache-2.0
"""From what is asked of training to its plan: data, decisions, edits, estimates."""
