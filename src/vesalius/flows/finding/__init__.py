# SPDX-License-Identifier: Apache-2.0
"""What `vesalius find` stands on: the query's images, and the answer with its reasons."""
