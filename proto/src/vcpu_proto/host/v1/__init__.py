# SPDX-License-Identifier: Apache-2.0
"""The contract of ``vcpuctl serve`` with other programs on its host."""
