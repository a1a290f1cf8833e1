# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: INP001  (a module for the findings' scripts, of no package)
"""A host that has KVM because QEMU emulates it: a kernel, and one file system with busybox, modules and QEMUs."""

from __future__ import annotations

import pathlib
import re
import shutil
import stat
import subprocess

from qmp import WORK

#: What the host's first process does before all else; the finding's own words follow.
INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
"""
#: How long the whole may take, in seconds: less than the script may.
_LIMIT = 170


def archive(top: pathlib.Path) -> bytes:
    """A first file system with what is in that folder.

    Documentation/driver-api/early-userspace/buffer-format.rst of Linux says how it is written.
    """
    whole = bytearray()

    def put(name: str, mode: int, data: bytes = b"", device: tuple[int, int] = (0, 0)) -> None:
        numbers = (len(whole), mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(name) + 1, 0)
        head = b"070701" + b"".join(b"%08x" % number for number in numbers) + name.encode() + b"\0"
        for part in (head, data):
            whole.extend(part + bytes(-len(part) % 4))

    for path in sorted(top.rglob("*")):
        mode = path.stat().st_mode
        put(str(path.relative_to(top)), mode, b"" if path.is_dir() else path.read_bytes())
    put("dev/console", stat.S_IFCHR | 0o600, device=(5, 1))
    put("TRAILER!!!", 0)
    return bytes(whole)


class EmulatedHost:
    """The host's file system: a folder that is filled, and what the host then says on its console."""

    def __init__(self, name: str, libraries: str, loader: str, busybox: str) -> None:
        """``libraries`` and ``loader`` are Debian's names for its architecture; ``busybox`` the root that has it."""
        self.top = pathlib.Path(WORK, name)
        self._libraries, self._loader = libraries, loader
        for folder in ("bin", "dev", "proc", "sys", "tmp"):
            (self.top / folder).mkdir(parents=True)
        shutil.copy(self._found(pathlib.Path(WORK, busybox), "bin/busybox"), self.top / "bin")

    def qemu(self, root: str, name: str, *firmware: str) -> None:
        """Put the QEMU of an unpacked root into the host's folder ``/ROOT``, with loader, libraries and firmware."""
        source, folder = pathlib.Path(WORK, root), self.top / root
        folder.mkdir()
        binary = source / "usr/bin" / name
        needed = {self._loader: self._found(source, f"lib/{self._libraries}/{self._loader}")}
        self._find(source, binary, needed)
        for file, place in needed.items():
            shutil.copy(place, folder / file)
        shutil.copy(binary, folder / "qemu")
        for file in firmware:
            shutil.copy(source / "usr/share" / file, folder)

    @staticmethod
    def _found(root: pathlib.Path, name: str) -> pathlib.Path:
        """Where a package has put it: older ones do without ``usr``."""
        return next(place for place in (root / "usr" / name, root / name) if place.exists())

    def _find(self, root: pathlib.Path, binary: pathlib.Path, found: dict[str, pathlib.Path]) -> None:
        said = subprocess.run(["readelf", "-d", str(binary)], capture_output=True, text=True, check=True).stdout
        for name in re.findall(r"\(NEEDED\).*\[(.*)\]", said):
            if name not in found:
                found[name] = self._found(root, f"lib/{self._libraries}/{name}")
                self._find(root, found[name], found)

    def run(self, qemu: list[str], kernel: pathlib.Path, append: str, init: str) -> str:
        """Boot it, have its shell do ``init`` and end it; what it has said. ``qemu`` are the words for the machine."""
        (self.top / "init").write_text(f"{INIT}{init}\npoweroff -f\n")
        (self.top / "init").chmod(0o755)
        initrd = self.top.with_name(f"{self.top.name}.initrd")
        initrd.write_bytes(archive(self.top))
        return subprocess.run(
            [
                *(*qemu, "-accel", "tcg,thread=multi", "-nodefaults", "-nographic", "-no-reboot", "-serial", "stdio"),
                *("-kernel", str(kernel), "-initrd", str(initrd), "-append", f"nokaslr quiet {append}"),
            ],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=_LIMIT, check=False,
        ).stdout  # fmt: skip
