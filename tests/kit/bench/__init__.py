# SPDX-License-Identifier: Apache-2.0
"""``make bench``: what vcpuctl adds to the kernel's own work, measured beside it in one run."""
