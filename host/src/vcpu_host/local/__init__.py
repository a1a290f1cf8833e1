# SPDX-License-Identifier: Apache-2.0
"""What lies on this host: records, locks, processes, VM files."""
