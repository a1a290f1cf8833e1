# SPDX-License-Identifier: Apache-2.0
"""What the kernel shows and takes: sysfs, procfs, uevents."""
