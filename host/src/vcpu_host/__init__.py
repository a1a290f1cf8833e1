# SPDX-License-Identifier: Apache-2.0
"""vcpuctl: resizes the vCPUs of a running QEMU virtual machine end to end (host side)."""

__version__ = "0.1.0"
