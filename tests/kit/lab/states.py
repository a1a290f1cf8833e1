# SPDX-License-Identifier: Apache-2.0
"""Saved states: VMs that were booted, and had packages installed, once; a copy of each is up in about a second.

A state is a pair that must never be mixed with another's: the disk's overlay and the rest of the machine, written at
one stopped moment. States are layered, and each belongs to just the build it was made on:
image <- booted <- with packages installed. So new packages cost their installation, not the boot.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from kit.lab import host
from kit.lab.cache import Cache, Entry, digest
from kit.lab.errors import LabError
from kit.lab.guest import Image
from kit.lab.qemu import Qemu
from kit.lab.spec import AGENT_CHARDEV, AGENT_READY, SOCKETS, VmSpec, command_line
from kit.lab.vm import Vm

_RECIPE = 2
#: The files of a saved state.
DISK, RAM = "disk.qcow2", "ram"
#: Seconds, with wide margins for TCG on a busy machine.
_BOOT, _INSTALL, _READY = 600.0, 600.0, 300.0
#: The same for a restored VM, which has only to go on.
_RESTORED = 120.0
#: An ordinary kernel has many modules for the machine's own devices, which udev loads beside everything else.
_RUNS = "state=$(systemctl is-system-running --wait); [ $state = running ] || [ $state = degraded ]"
SETTLED = f"{{ {_RUNS}; }} && udevadm settle -t 200"


def overlay(qemu: Qemu, backing: Path, backing_format: str, path: Path, *, relative: bool = False) -> None:
    """Make a qcow2 file that holds what differs from the backing file.

    ``relative`` keeps the two findable when their common parent moves (or the new one's temporary name goes).
    """
    name = os.path.relpath(backing, path.parent) if relative else str(backing)
    host.run([*qemu.img, "create", "-q", "-f", "qcow2", "-b", name, "-F", backing_format, str(path)])


def rebase(qemu: Qemu, disk: Path, backing: Path) -> None:
    """Have an overlay name its backing file by a relative path, so that both are found when their parent moves."""
    name = os.path.relpath(backing, disk.parent)
    host.run([*qemu.img, "rebase", "-u", "-F", "qcow2", "-b", name, str(disk)])


@contextmanager
def find(
    cache: Cache, spec: VmSpec, qemu: Qemu, image: Image, accel: str, progress: host.Progress = host.quiet
) -> Iterator[Entry]:
    """The spec's saved state, made (with the ones below it) the first time."""
    with _booted(cache, spec, qemu, image, accel, progress) as booted:
        if spec.debs is None:
            yield booted
        else:
            with _installed(cache, spec, qemu, image, accel, booted, progress) as installed:
                yield installed


def restore(spec: VmSpec, qemu: Qemu, image: Image, accel: str, state: Path, disk: Path) -> Vm:
    """A new VM from that state, on a throw-away overlay at ``disk``."""
    overlay(qemu, state / DISK, "qcow2", disk)
    vm = Vm(spec, qemu, image, accel, disk, incoming=True)
    try:
        vm.load(state / RAM)
        vm.wait_shell(_RESTORED)
    except BaseException:
        vm.close()
        raise
    return vm


def boot(spec: VmSpec, qemu: Qemu, image: Image, accel: str, disk: Path) -> Vm:
    """A VM booted from the image, up to a settled systemd, on the overlay at ``disk``."""
    vm = Vm(spec, qemu, image, accel, disk)
    try:
        settle(vm)
    except BaseException:
        vm.close()
        raise
    return vm


def settle(vm: Vm, timeout: float = _BOOT) -> None:
    """Wait until the VM has booted and systemd in it has nothing left to start."""
    vm.wait_shell(timeout)
    vm.shell(SETTLED, timeout)


def install(vm: Vm, files: Mapping[str, bytes]) -> None:
    """Install .deb files in the running guest and wait until they count as ready (``spec.ready``).

    Raises LabError, with the end of the guest's journal, if they do not become so in time.
    """
    vm.shell("mkdir -p /run/lab/debs")
    for name, data in files.items():
        vm.put(data, f"/run/lab/debs/{name}")
    vm.shell("dpkg -i /run/lab/debs/*.deb && rm -r /run/lab/debs", _INSTALL)
    wait_ready(vm)


def wait_ready(vm: Vm) -> None:
    """Wait until what is installed counts as ready (``spec.ready``). Raises LabError as ``install`` does."""
    try:
        vm.shell(f"until {vm.spec.ready}; do sleep 0.5; done", _READY)
        if vm.spec.ready == AGENT_READY:
            _wait_agent_port(vm)
    except LabError as error:
        journal = vm.shell("systemctl --failed --no-pager; journalctl -b -n 40 --no-pager -o short-monotonic", 30.0)
        raise LabError(f"{', '.join(vm.spec.packages)}: installed, but not ready: {error}\n{journal}") from error


def debs(spec: VmSpec) -> dict[str, bytes]:
    """The spec's .deb files: name and content, read once, since a build may replace them meanwhile.

    Raises LabError if one is missing or there are two of a kind.
    """
    return {file.name: file.read_bytes() for file in _deb_files(spec)}


def _deb_files(spec: VmSpec) -> list[Path]:
    if spec.debs is None:
        return []
    if not spec.packages:
        return sorted(spec.debs.glob("*.deb"))
    files = []
    for package in spec.packages:
        found = sorted(spec.debs.glob(f"{package}_*.deb"))
        if len(found) != 1:
            raise LabError(f"{spec.debs} should hold one {package}_*.deb, and holds {[file.name for file in found]}")
        files += found
    return files


@contextmanager
def _booted(
    cache: Cache, spec: VmSpec, qemu: Qemu, image: Image, accel: str, progress: host.Progress
) -> Iterator[Entry]:
    bare = spec.without_debs()

    def build(folder: Path) -> None:
        progress(f"booting {spec.guest} on {spec.machine}, QEMU {qemu.full_version}, {accel} (once)")
        overlay(qemu, image.root, "raw", folder / DISK, relative=True)
        with boot(bare, qemu, image, accel, folder / DISK) as vm:
            progress("saving the booted state")
            vm.save(folder / RAM)

    sockets = dict.fromkeys((*SOCKETS, *spec.ports), "")
    line = command_line(spec, qemu, image, accel, Path("disk"), Path("console"), sockets)
    key = digest(_RECIPE, line, qemu.key, image.key)
    with cache.entry(f"booted-{digest(asdict(bare), accel)}", key, build) as entry:
        yield entry


@contextmanager
def _installed(
    cache: Cache, spec: VmSpec, qemu: Qemu, image: Image, accel: str, booted: Entry, progress: host.Progress
) -> Iterator[Entry]:
    files = debs(spec)

    def build(folder: Path) -> None:
        progress(f"installing {', '.join(files)} in the running guest (once)")
        with restore(spec, qemu, image, accel, booted.path, folder / DISK) as vm:
            install(vm, files)
            progress("saving the installed state")
            vm.save(folder / RAM)
        rebase(qemu, folder / DISK, booted.path / DISK)

    key = digest(
        _RECIPE, booted.build_id, {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}, spec.ready
    )
    # by the directory's name, not its path: another checkout's packages take the place of this one's
    kind = digest({**asdict(spec), "debs": spec.debs and spec.debs.name}, accel)
    with cache.entry(f"installed-{kind}", key, build) as entry:
        yield entry


def _wait_agent_port(vm: Vm) -> None:
    """Wait until the guest has the agent's port open: the chardev's frontend, as QEMU sees it."""

    def is_open() -> bool:
        chardevs = vm.qmp.execute("query-chardev")
        return any(item["label"] == AGENT_CHARDEV and item["frontend-open"] for item in chardevs)

    if not is_open():
        vm.qmp.wait_event("VSERPORT_CHANGE", _READY, id="agent-port", open=True)
