# SPDX-License-Identifier: Apache-2.0
"""Programs of other architectures on this host, for the time that a guest image of theirs is built.

Debian's packages run scripts when they are configured, so a foreign root needs an emulator. It is a statically linked
qemu-user, fetched by the lab, and registered with the kernel (binfmt_misc) so that it is opened at once (flag F): then
it is found in a chroot too. See the kernel's Documentation/admin-guide/binfmt-misc.rst.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from kit.lab import host
from kit.lab.arch import ARCHES, NATIVE, Arch
from kit.lab.cache import Cache, digest
from kit.lab.errors import LabError

_SUITE, _PACKAGE = "sid", "qemu-user"
_RECIPE = 2
_BINFMT = Path("/proc/sys/fs/binfmt_misc")
#: e_ident up to the padding: class 64, data, version; OS ABI may be 0 or GNU's 3.
_IDENT, _IDENT_MASK = b"\x7fELF\x02%c\x01", b"\xff\xff\xff\xff\xff\xff\xff\xfc"


def enable(cache: Cache, arch: Arch, progress: host.Progress = host.quiet) -> None:
    """Have the kernel run programs of `arch`; nothing to do where it does already. Needs root, or sudo.

    Raises LabError if the kernel does not let us.
    """
    if arch.name == NATIVE or _enabled(arch):
        return

    def build(folder: Path) -> None:
        progress("fetching QEMU's user-mode emulation")
        tarball = folder / "root.tar"
        host.bootstrap([_SUITE], [_PACKAGE], tarball, variant="extract")
        host.run(["tar", "-C", str(folder), "--strip-components=3", "--wildcards", "-xf", str(tarball), "./usr/bin/*"])
        tarball.unlink()
        wanted = {f"qemu-{known.user}" for known in ARCHES.values()}
        for file in folder.iterdir():
            if file.name not in wanted:
                file.unlink()

    with cache.entry("qemu-user", digest(_RECIPE, _SUITE, _PACKAGE), build) as entry:
        if not (_BINFMT / "register").exists():
            _as_root(["mount", "-t", "binfmt_misc", "binfmt_misc", str(_BINFMT)])
        rule = _rule(arch, entry.path / f"qemu-{arch.user}")
        # one write(2): the kernel takes a rule whole
        _as_root(["sh", "-c", f"printf '%s' \"$1\" >{_BINFMT}/register", "sh", rule])
    if not _enabled(arch):
        raise LabError(f"the kernel did not take the rule for {arch.user} programs: {rule}")


def _as_root(argv: list[str]) -> None:
    """Run a command as root, by sudo if need be. Raises CommandError, LabError."""
    if os.geteuid() != 0:
        if shutil.which("sudo") is None:
            raise LabError(f"this needs root, or sudo: {' '.join(argv)}")
        argv = ["sudo", "-n", *argv]
    host.run(argv)


def _enabled(arch: Arch) -> bool:
    rule = _BINFMT / f"qemu-{arch.user}"
    if not rule.exists():
        return False
    text = rule.read_text()
    # without F the emulator would be looked for inside the new root
    return text.startswith("enabled") and any("F" in line for line in text.splitlines() if line.startswith("flags:"))


def _rule(arch: Arch, program: Path) -> str:
    """``:name:M:offset:magic:mask:interpreter:flags``; e_type may be ET_EXEC or ET_DYN."""
    magic = (_IDENT % (2 if arch.big_endian else 1)) + b"\0" * 9
    mask = _IDENT_MASK + b"\xff" * 8
    kind, kind_mask = (b"\x00\x02", b"\xff\xfe") if arch.big_endian else (b"\x02\x00", b"\xfe\xff")
    magic, mask = magic + kind + arch.machine, mask + kind_mask + b"\xff\xff"
    return f":qemu-{arch.user}:M::{_escaped(magic)}:{_escaped(mask)}:{program}:OCF"


def _escaped(data: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in data)
