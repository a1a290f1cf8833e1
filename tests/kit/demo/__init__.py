# SPDX-License-Identifier: Apache-2.0
"""``make demo``: a real VM, resized end to end, with each step shown."""
