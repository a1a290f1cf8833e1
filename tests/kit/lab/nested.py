# SPDX-License-Identifier: Apache-2.0
"""A host with KVM on any machine: a VM of the lab, whose CPUs QEMU emulates with all that KVM needs, and the VM in it.

The VM in the host is made as every other VM of the lab but for its accelerator, and the lab sees it by the same means,
its monitor, its shell and its record, which ``lab.relay`` hands on through virtio-serial ports of the host. The record
is QEMU's own, and all of it is on the host's clock. What is to be tried on the VM runs in the host (``KvmHost.run``).
"""

from __future__ import annotations

import shlex
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from kit.lab.emulated import JOINTS, ORACLE, RECORD, SHELL
from kit.lab.errors import LabError, VmDiedError, WaitTimeoutError
from kit.lab.place import Line, Started
from kit.lab.vm import Vm

#: In the host: the QEMUs, the disk of its VM, what is on that disk, and the VM's own files.
QEMUS, ROOT, FILES, RUN = Path("/srv/qemu"), Path("/dev/vdc"), Path("/srv/vm"), Path("/run/vm")
#: The overlay on the VM's disk; its kernel and initrd, which are on the disk: a console takes minutes.
DISK, KERNEL, INITRD = RUN / "disk.qcow2", FILES / "boot/vmlinuz", FILES / "boot/initrd"
#: Shell in the VM: from now on its kernel says on the console what it does, and that it has been started.
_SPEAK = "echo 7 >/proc/sys/kernel/printk; dmesg | sed -n '/Linux version/{{p;q}}' >/dev/{console}"
#: Shell in the VM, before it is under KVM: what its boots would do that no test needs, and large reads of its disk.
TRIM = """mkdir -p /etc/systemd/system/systemd-udev-trigger.service.d
cat >/etc/systemd/system/systemd-udev-trigger.service.d/lab.conf <<'END'
[Service]
ExecStart=
ExecStart=-udevadm trigger --action=add -s block -s virtio-ports
ExecStart=-udevadm trigger --action=add -s tty -y hvc*
END
echo 'ACTION=="add", KERNEL=="vda", ATTR{queue/read_ahead_kb}="4096"' >/etc/udev/rules.d/90-lab.rules
systemctl mask --quiet kmod-static-nodes.service systemd-journal-flush.service systemd-modules-load.service \
    systemd-random-seed.service systemd-sysctl.service systemd-sysusers.service systemd-tmpfiles-setup.service \
    systemd-tmpfiles-setup-dev.service systemd-tmpfiles-setup-dev-early.service systemd-update-done.service \
    systemd-user-sessions.service"""
_RELAY = Path(__file__).with_name("relay.py")
#: Seconds for something small in the host, on a busy machine.
_SOON = 120.0


class KvmHost:
    """The emulated host, ``vm``, and the VM under KVM in it, ``guest``. It is a ``lab.place``."""

    guest: Vm

    def __init__(self, vm: Vm) -> None:
        self.vm = vm

    def speak(self) -> None:
        """Have the VM's kernel, which booted with few words, tell on its console of its CPUs. To do after each boot."""
        self.guest.shell(_SPEAK.format(console=self.guest.spec.arch.console), _SOON)

    def run(self, argv: Sequence[str], timeout: float = _SOON) -> subprocess.CompletedProcess[str]:
        """Run a program in the host to its end. Raises subprocess.TimeoutExpired."""
        files = f"{RUN}/stdout {RUN}/stderr"
        script = f"{shlex.join(argv)} >{RUN}/stdout 2>{RUN}/stderr; echo $? $(stat -c %s {files}); cat {files}"
        try:
            head, _, said = self.vm.shell(script, timeout).partition("\n")
        except LabError as error:
            raise subprocess.TimeoutExpired(list(argv), timeout) from error
        status, size, _ = map(int, head.split())
        both = said.encode()
        return subprocess.CompletedProcess(list(argv), status, both[:size].decode(), both[size:].decode())

    def begin(self, argv: Sequence[str]) -> Inside:
        """Start a program in the host and leave it running; what it says is dropped."""
        script = f"setsid {shlex.join(argv)} </dev/null >/dev/null 2>&1 & echo $!"
        return Inside(self.vm, int(self.vm.shell(script, _SOON)))

    def prepare(self, module: str, img: Sequence[str]) -> None:
        """Have KVM, the VM's files and the relay in a host whose drives are filled."""
        joints = " ".join(f"{port}={name}" for port, name in JOINTS.items())
        overlay = shlex.join([*img, "create", "-q", "-f", "qcow2", "-b", str(ROOT), "-F", "raw", str(DISK)])
        # flushbufs: what was read while the drives held nothing is forgotten
        self.vm.shell(
            f"blockdev --flushbufs /dev/vdb {ROOT} && modprobe {module} && [ -e /dev/kvm ]"
            f" && mkdir -p {QEMUS} {FILES} {RUN} && mount -o ro /dev/vdb {QEMUS} && mount -o ro,noload {ROOT} {FILES}"
            f" && mount -t tmpfs -o size=1G vm {RUN} && {overlay}",
            _SOON,
        )
        self.vm.put(_RELAY.read_bytes(), f"{RUN}/relay.py", _SOON)
        relay = f"python3 {RUN}/relay.py {RUN} {joints}"
        self.vm.shell(f"setsid {relay} </dev/null >{RUN}/relay.log 2>&1 &", _SOON)

    def forget(self) -> None:
        """Have the record begin anew: what the VM said before is kept in the host, beside it."""
        self.vm.shell(f"cp {RUN}/record {RUN}/record.before && : >{RUN}/record", _SOON)

    def start(self, line: Line, env: Mapping[str, str], names: Sequence[str], folder: Path) -> Started:
        """Start QEMU in the host: see ``lab.place``. Raises VmDiedError with its words."""
        argv = line(RUN / "console.log", {name: f"path={RUN / name}.sock" for name in names})
        words = shlex.join([*(f"{name}={value}" for name, value in env.items()), *argv])
        script = f"echo $$ >{RUN}/pid; exec env {words} </dev/null >/dev/null 2>>{RUN}/record"
        up = f"until [ -S {RUN}/oracle.sock ]; do kill -0 $(cat {RUN}/pid) || exit 1; busybox usleep 20000; done"
        try:
            self.vm.shell(
                f"setsid sh -c {shlex.quote(script)} &\nuntil [ -s {RUN}/pid ]; do busybox usleep 20000; done; {up}",
                _SOON,
            )
        except LabError as error:
            raise VmDiedError(f"QEMU in the emulated host: {self.vm.shell(f'cat {RUN}/record')}") from error
        return self._attach(names)

    def _attach(self, names: Sequence[str]) -> Started:
        """Take up the QEMU that runs there."""
        stream = socket.socket(socket.AF_UNIX)
        stream.connect(str(self.vm.sockets[RECORD]))
        said = stream.makefile("rb")
        stream.close()  # which it is with the file

        def leave() -> None:
            with suppress(OSError):  # the host has ended it
                stream.shutdown(socket.SHUT_RDWR)

        return Started(
            Inside(self.vm, int(self.vm.shell(f"cat {RUN}/pid", _SOON))),
            said,
            {
                **{name: RUN / f"{name}.sock" for name in names},
                "oracle": self.vm.sockets[ORACLE],
                "shell": self.vm.sockets[SHELL],
            },
            lambda path: path.write_text(self.vm.shell(f"cat {RUN}/console.log", _SOON)),
            leave,
        )


class RestoredHost(KvmHost):
    """The host after a restore: the QEMU of its VM is there."""

    def start(self, line: Line, env: Mapping[str, str], names: Sequence[str], folder: Path) -> Started:
        """Take it up."""
        return self._attach(names)


class Inside:
    """A process in the host; see ``lab.place``."""

    def __init__(self, vm: Vm, pid: int) -> None:
        self._vm, self.pid = vm, pid

    def poll(self) -> int | None:
        """None while it runs; 0 when it is gone: nobody there keeps its status."""
        alive = self._vm.shell(f"kill -0 {self.pid} 2>/dev/null && echo alive || :", _SOON)
        return None if alive else 0

    def kill(self) -> None:
        """Kill it, if it and the host still run."""
        with suppress(VmDiedError):
            self._vm.shell(f"kill -9 {self.pid} 2>/dev/null || :", _SOON)

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it is gone. Raises WaitTimeoutError."""
        until = time.monotonic() + (timeout or _SOON)
        with suppress(VmDiedError):
            while self.poll() is None:
                if time.monotonic() > until:
                    raise WaitTimeoutError(f"process {self.pid} of the emulated host does not end")
        return 0
