# SPDX-License-Identifier: Apache-2.0
"""What a VM is to be, and the QEMU command line that makes it so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from lab.guest import Image
from lab.qemu import STANDARD, Qemu

#: The port the agent listens on, and the chardev behind it.
AGENT_PORT = "org.vcpuctl.agent.0"
AGENT_CHARDEV = "agent"
#: The chardevs that listen: the agent port, the guest's second console, the monitor kept free for the program under
#: test, and the lab's own monitor.
SOCKETS = (AGENT_CHARDEV, "shell", "qmp", "oracle")
#: Guest packages the debs layer installs, and when it counts as up.
AGENT_PACKAGES = ("python3-vcpu-proto", "vcpu-guest")
AGENT_READY = "systemctl is-active --quiet vcpud"

#: ttyS0 has the kernel log alone; the lab's shell sits on hvc0.
_KERNEL_LINE = (
    "root=/dev/vda rw console=ttyS0 loglevel=7 tsc=reliable panic=-1 "
    "systemd.getty_auto=0 systemd.show_status=0 systemd.firstboot=0"
)


@dataclass(frozen=True)
class VmSpec:
    """A VM's description. Equal specs share saved states.

    ``smp`` is QEMU's -smp value; keep maxcpus at 9 or more for QEMU before 9.0 under TCG (its flat logical APIC mode
    loses interrupts behind holes). ``debs`` is a directory: of its files those of ``packages`` (all, if empty) are
    installed in the running guest, which counts as ready once the shell condition ``ready`` holds.
    """

    machine: str = "q35"
    qemu: str = STANDARD
    smp: str = "1,maxcpus=16,sockets=2,cores=4,threads=2"
    memory_mb: int = 512
    guest: str = "debian12-amd64"
    cpu: str = "qemu64"
    kernel_args: str = ""
    debs: Path | None = None
    packages: tuple[str, ...] = AGENT_PACKAGES
    ready: str = AGENT_READY
    extra_args: tuple[str, ...] = ()

    @property
    def boot_vcpus(self) -> int:
        """vCPUs present at boot."""
        first = self.smp.split(",")[0]
        return int(first.removeprefix("cpus="))

    @property
    def max_vcpus(self) -> int:
        """Possible vCPUs; QEMU's rule for an -smp without maxcpus is not needed here, so it means the boot ones."""
        options = dict(part.split("=", 1) for part in self.smp.split(",") if "=" in part)
        return int(options.get("maxcpus", self.boot_vcpus))

    def without_debs(self) -> VmSpec:
        """The same VM before anything was installed in it."""
        return replace(self, debs=None, packages=AGENT_PACKAGES, ready=AGENT_READY)


def command_line(
    spec: VmSpec, qemu: Qemu, image: Image, accel: str, disk: Path, console: Path, sockets: Mapping[str, str]
) -> list[str]:
    """QEMU's arguments for that VM; those of two specs differ wherever a saved state of one would not fit the other.

    ``sockets`` says for each name of SOCKETS what its chardev listens on (``path=...`` or ``fd=...``).
    """

    def socket(name: str) -> list[str]:
        return ["-chardev", f"socket,id={name},{sockets[name]},server=on,wait=off"]

    argv = [*qemu.system, "-nodefaults", "-no-user-config", "-display", "none", "-nic", "none"]
    argv += ["-machine", spec.machine, "-cpu", spec.cpu, "-smp", spec.smp, "-m", str(spec.memory_mb)]
    argv += ["-accel", "tcg,thread=multi" if accel == "tcg" else accel]
    argv += ["-kernel", str(image.kernel), "-initrd", str(image.initrd)]
    argv += ["-append", f"{_KERNEL_LINE} {spec.kernel_args}".strip()]
    argv += ["-drive", f"file={disk},format=qcow2,if=none,id=root,cache=unsafe,discard=unmap"]
    argv += ["-device", "virtio-blk-pci,drive=root,id=root-disk"]
    argv += ["-object", "rng-random,id=entropy,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=entropy"]
    argv += ["-chardev", f"null,id=console,logfile={console}", "-serial", "chardev:console"]
    # the shell has a controller of its own, so the agent's looks as it would in anybody's VM
    argv += [*socket("shell"), "-device", "virtio-serial-pci,id=lab-serial"]
    argv += ["-device", "virtconsole,chardev=shell,bus=lab-serial.0,nr=0"]
    argv += [*socket(AGENT_CHARDEV), "-device", "virtio-serial-pci,id=agent-serial"]
    argv += ["-device", f"virtserialport,chardev={AGENT_CHARDEV},name={AGENT_PORT},id=agent-port,bus=agent-serial.0"]
    argv += [*socket("qmp"), "-mon", "chardev=qmp,mode=control"]
    argv += [*socket("oracle"), "-mon", "chardev=oracle,mode=control"]
    # both kinds of record come from QEMU itself, on one stream and one clock: see lab.record
    argv += ["-msg", "timestamp=on", "-trace", "enable=handle_qmp_command", "-trace", "enable=serial_write"]
    return [*argv, *spec.extra_args]
