# SPDX-License-Identifier: Apache-2.0
"""MADNorm, the network in front of any encoder, and its adaptation without labels."""
