# SPDX-License-Identifier: Apache-2.0
"""One file a verb: what `vs.train` and its siblings do, start to end."""
