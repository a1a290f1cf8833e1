# SPDX-License-Identifier: Apache-2.0
"""Where Debian's package has its own copy of qemu.qmp (docs/adr/0005-vendored-qemu-qmp.md)."""

from __future__ import annotations

import os
import sys

#: It holds nothing else. pip has put qemu.qmp where Python finds it anyway.
DIRECTORY = "/usr/lib/vcpu-host/vendor"


def find(directory: str = DIRECTORY) -> None:
    """Have Python look there, too, behind everything else: where python3-qemu-qmp is installed, that one is used."""
    if directory not in sys.path and os.path.isdir(directory):
        sys.path.append(directory)
