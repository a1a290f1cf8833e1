# SPDX-License-Identifier: Apache-2.0
"""What a VM is to be, and the QEMU command line that makes it so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from kit.lab.arch import Arch
from kit.lab.guest import Image, arch_of, recipe_of
from kit.lab.qemu import STANDARD, Qemu

#: The port the agent listens on, and the chardev behind it.
AGENT_PORT = "org.vcpuctl.agent.0"
AGENT_CHARDEV = "agent"
#: The chardevs that listen: the agent port, the guest's second console, the monitor kept free for the program under
#: test, and the lab's own monitor.
SOCKETS = (AGENT_CHARDEV, "shell", "qmp", "oracle")
#: Guest packages the debs layer installs, and when it counts as up.
AGENT_PACKAGES = ("python3-vcpu-proto", "vcpu-guest")
AGENT_READY = "systemctl is-active --quiet vcpud"

#: What has Linux recognise a hypervisor, VMware's, where TCG emulates the CPUs: QEMU answers on VMware's port, and the
#: machine's serial number has VMware's form, which Linux heeds where no CPU flag speaks of a hypervisor
#: (arch/x86/kernel/cpu/vmware.c, vmware_platform). TCG's own name Linux does not know, and kernels with the present
#: acpi_is_processor_usable() (arch/x86/kernel/acpi/boot.c, 6.12.77 and newer) then have no CPU to plug.
_VMWARE_MACHINE, _VMWARE_CPU = ",vmport=on", ",-hypervisor"
_VMWARE_ARGS = ("-smbios", "type=1,serial=VMware-x")

#: The console has the kernel log alone; the lab's shell sits on a virtio console.
_KERNEL_LINE = (
    "root=/dev/vda rw console={console} loglevel=7 panic=-1 "
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
    guest: str = "debian12-amd64"
    #: Start a guest that has CPUs to plug only under a hypervisor that its kernel recognises as anybody would: without
    #: the lab's help.
    unaided: bool = False
    #: "" and 0: what is usual for the guest's architecture.
    cpu: str = ""
    memory_mb: int = 0
    kernel_args: str = ""
    debs: Path | None = None
    packages: tuple[str, ...] = AGENT_PACKAGES
    ready: str = AGENT_READY
    #: -device arguments of CPUs, each with its "-device" before it.
    devices: tuple[str, ...] = ()
    extra_args: tuple[str, ...] = ()
    #: Further virtio-serial ports of the guest, each with a socket of its name.
    ports: ClassVar[tuple[str, ...]] = ()

    @property
    def arch(self) -> Arch:
        """The guest's architecture."""
        return arch_of(self.guest)

    @property
    def boot_vcpus(self) -> int:
        """vCPUs present at boot."""
        first = self.smp.split(",")[0]
        return int(first.removeprefix("cpus="))

    @property
    def max_vcpus(self) -> int:
        """Possible vCPUs; QEMU's rule for an -smp without maxcpus is not needed here, so it means the boot ones."""
        return int(self._smp_options.get("maxcpus", self.boot_vcpus))

    @property
    def threads(self) -> int:
        """Threads of a core."""
        return int(self._smp_options.get("threads", 1))

    @property
    def _smp_options(self) -> dict[str, str]:
        return dict(part.split("=", 1) for part in self.smp.split(",") if "=" in part)

    def without_debs(self) -> VmSpec:
        """The same VM before anything was installed in it."""
        return replace(self, debs=None, packages=AGENT_PACKAGES, ready=AGENT_READY)


def command_line(
    spec: VmSpec, qemu: Qemu, image: Image, accel: str, disk: Path, console: Path, sockets: Mapping[str, str]
) -> list[str]:
    """QEMU's arguments for that VM; those of two specs differ wherever a saved state of one would not fit the other.

    ``sockets`` says for each name of SOCKETS and each of the spec's ports what its chardev listens on (``path=...`` or
    ``fd=...``).
    """

    def socket(name: str) -> list[str]:
        return ["-chardev", f"socket,id={name},{sockets[name]},server=on,wait=off"]

    arch = spec.arch
    argv = [*qemu.system, "-nodefaults", "-no-user-config", "-display", "none", "-nic", "none"]
    machine, cpu = spec.machine, spec.cpu or arch.cpu
    if accel == "tcg" and recipe_of(spec.guest).wants_hypervisor and not spec.unaided:
        machine, cpu = machine + _VMWARE_MACHINE, cpu + _VMWARE_CPU
        argv += _VMWARE_ARGS
    argv += ["-machine", machine, "-cpu", cpu, "-smp", spec.smp]
    argv += ["-m", str(spec.memory_mb or arch.memory_mb)]
    argv += ["-accel", "tcg,thread=multi" if accel == "tcg" else accel]
    argv += ["-kernel", str(image.kernel), "-initrd", str(image.initrd)]
    kernel_line = [_KERNEL_LINE.format(console=arch.console), arch.kernel_args, spec.kernel_args]
    argv += ["-append", " ".join(filter(None, kernel_line))]
    for unit, firmware in enumerate(image.firmware):
        # what is written to its variables is kept with the rest of the machine's state, and not in the image
        argv += ["-drive", f"if=pflash,unit={unit},format=raw,file={firmware},snapshot=on"]
    argv += ["-drive", f"file={disk},format=qcow2,if=none,id=root,cache=unsafe,discard=unmap"]
    argv += ["-device", f"virtio-blk-{arch.bus},drive=root,id=root-disk"]
    argv += ["-object", "rng-random,id=entropy,filename=/dev/urandom", "-device", f"virtio-rng-{arch.bus},rng=entropy"]
    argv += ["-chardev", f"null,id=console,logfile={console}", "-serial", "chardev:console"]
    # the shell has a controller of its own, so the agent's looks as it would in anybody's VM
    argv += [*socket("shell"), "-device", f"virtio-serial-{arch.bus},id=lab-serial"]
    argv += ["-device", "virtconsole,chardev=shell,bus=lab-serial.0,nr=0"]
    argv += [*socket(AGENT_CHARDEV), "-device", f"virtio-serial-{arch.bus},id=agent-serial"]
    argv += ["-device", f"virtserialport,chardev={AGENT_CHARDEV},name={AGENT_PORT},id=agent-port,bus=agent-serial.0"]
    argv += ["-device", f"virtio-serial-{arch.bus},id=port-serial"] if spec.ports else []
    for port in spec.ports:
        argv += [*socket(port), "-device", f"virtserialport,chardev={port},name={port},bus=port-serial.0"]
    argv += [*socket("qmp"), "-mon", "chardev=qmp,mode=control"]
    argv += [*socket("oracle"), "-mon", "chardev=oracle,mode=control"]
    # both kinds of record come from QEMU itself, on one stream and one clock: see lab.record
    argv += ["-msg", "timestamp=on", "-trace", "enable=handle_qmp_command"]
    argv += ["-trace", f"enable={arch.trace}"] if arch.trace else []
    return [*argv, *spec.devices, *spec.extra_args]
