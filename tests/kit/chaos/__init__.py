# SPDX-License-Identifier: Apache-2.0
"""The chaos machine: random operations and random faults on a real VM, judged by the lab's own eyes."""
