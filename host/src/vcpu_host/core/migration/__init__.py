# SPDX-License-Identifier: Apache-2.0
"""Which vCPUs a VM has, as a value that can travel to another QEMU, and how two such values compare."""
