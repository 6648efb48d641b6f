# SPDX-License-Identifier: Apache-2.0
"""Serving: DICOM node, DICOMweb, REST, and the durable queue between them and the runs.

The server's process holds no network and no training code; runs are applied in processes of
their own (`worker`). What stands above hands in how a run is applied to an exam.
"""
