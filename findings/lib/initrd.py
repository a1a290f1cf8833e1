# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: INP001  (a module for the findings' scripts, of no package)
"""A guest that is a kernel, busybox and one script."""

from __future__ import annotations

import glob
import os
import subprocess

from qmp import WORK


def kernel(root: str) -> str:
    """The kernel of that unpacked Debian root."""
    (found,) = glob.glob(os.path.join(WORK, root, "boot/vmlinuz-*"))
    return found


def initrd(root: str, script: str) -> str:
    """An initial RAM disk with the root's busybox, in which the script is /init; /proc, /sys and /dev are empty."""
    files, made = os.path.join(WORK, "files"), os.path.join(WORK, "initrd")
    for folder in ("bin", "proc", "sys", "dev"):
        os.makedirs(os.path.join(files, folder))
    places = [os.path.join(WORK, root, folder, "busybox") for folder in ("bin", "usr/bin")]
    busybox = next(place for place in places if os.path.exists(place))
    os.link(busybox, os.path.join(files, "bin/busybox"))
    with open(os.path.join(files, "init"), "w", encoding="ascii") as file:
        file.write("#!/bin/busybox sh\n" + script)
    os.chmod(os.path.join(files, "init"), 0o755)
    names = "\n".join(["bin", "bin/busybox", "proc", "sys", "dev", "init"])
    with open(made, "wb") as archive:
        argv = [busybox, "cpio", "-o", "-H", "newc"]
        subprocess.run(argv, cwd=files, input=names.encode(), stdout=archive, stderr=subprocess.DEVNULL, check=True)
    return made
