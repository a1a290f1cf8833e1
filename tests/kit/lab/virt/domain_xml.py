# SPDX-License-Identifier: Apache-2.0
"""What a domain is to be, and the libvirt XML that makes it so."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from kit.lab.arch import ARCHES, NATIVE
from kit.lab.guest import Image, recipe_of
from kit.lab.spec import AGENT_PORT

_QEMU_SCHEMA = "http://libvirt.org/schemas/domain/qemu/1.0"
#: As in ``lab.spec``: the kernel's log alone on the console.
_KERNEL_LINE = (
    "root=/dev/vda rw console=ttyS0 loglevel=7 panic=-1 systemd.getty_auto=0 systemd.show_status=0 systemd.firstboot=0"
)
#: Names in a domain's own directory.
SHELL, CONSOLE, MONITOR = "shell.sock", "console.log", "monitor.sock"
#: For a domain that never runs anything.
_NO_MEMORY_MB = 64


@dataclass(frozen=True)
class Vcpu:
    """One vCPU of a ``<vcpus>`` block. What is enabled and hot-pluggable may be unplugged, whenever it was plugged."""

    id: int
    enabled: bool = True
    hotpluggable: bool = True


@dataclass(frozen=True)
class DomainSpec:
    """A domain's description: a q35 machine under TCG.

    Keep ``max_vcpus`` at 9 or more for QEMU before 9.0 under TCG, as in ``VmSpec``, and remember its plug budget.
    """

    name: str = "d1"
    #: "": made from the name.
    uuid: str = ""
    max_vcpus: int = 16
    #: vCPUs at boot, which libvirt never unplugs, unless ``vcpus`` says which and how.
    current: int = 1
    #: A ``<vcpus>`` block of these, in the order in which they are plugged; those not named are disabled.
    vcpus: tuple[Vcpu, ...] = ()
    #: Sockets, dies, cores, threads; None leaves it to libvirt: sockets of one CPU each.
    topology: tuple[int, int, int, int] | None = (2, 1, 4, 2)
    #: For each NUMA cell the ids of its vCPUs, such as "0-7".
    cells: tuple[str, ...] = ()
    #: 0: what is usual for the guest, and hardly any without one.
    memory_mb: int = 0
    #: Whether it has vcpud's channel.
    agent: bool = True
    #: The guest's image in the lab; "" has neither disk nor kernel, for a domain that stays paused.
    guest: str = ""
    kernel_args: str = ""
    #: More elements of ``<domain>`` and of ``<devices>``: ``<cputune>``, ``<iothreads>``, channels, ...
    elements: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    #: Whether QEMU records its monitor's commands and the guest's console on one clock, and gives the lab a monitor of
    #: its own, which no libvirt stands before. libvirt calls such a domain tainted (custom-argv).
    record: bool = False
    #: Arguments of QEMU's command line, which taint it as well.
    arguments: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """Its UUID."""
        return self.uuid or str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{self.name}.vcpuctl-lab"))


@dataclass(frozen=True)
class Files:
    """The files of one domain, as its host sees them."""

    #: Belongs to the domain on its host alone.
    folder: Path
    disk: Path | None = None
    image: Image | None = None

    @property
    def shell(self) -> Path:
        """The socket of the root shell in the guest."""
        return self.folder / SHELL

    @property
    def console(self) -> Path:
        """What the guest's kernel says."""
        return self.folder / CONSOLE

    @property
    def monitor(self) -> Path:
        """The socket of the lab's own monitor, if the spec has a record."""
        return self.folder / MONITOR


def xml(spec: DomainSpec, files: Files) -> str:
    """Return the ``<domain>`` of that spec on those files."""
    memory = spec.memory_mb or (ARCHES[NATIVE].memory_mb if spec.guest else _NO_MEMORY_MB)
    helped = bool(spec.guest) and recipe_of(spec.guest).wants_hypervisor
    vmport = "<vmport state='on'/>" if helped else ""
    parts = [
        f"<name>{escape(spec.name)}</name><uuid>{spec.id}</uuid>",
        f"<memory unit='MiB'>{memory}</memory>",
        *_vcpus(spec),
        *_boot(spec, files, helped),
        f"<features><acpi/><apic/>{vmport}</features>",
        _cpu(spec, memory, helped),
        "<clock offset='utc'/><on_reboot>restart</on_reboot>",
        *spec.elements,
        "<devices>",
        *_devices(spec, files),
        *spec.devices,
        "</devices>",
        command_line(spec, files),
    ]
    return "\n".join(["<domain type='qemu'>", *parts, "</domain>", ""])


def _vcpus(spec: DomainSpec) -> Iterator[str]:
    if not spec.vcpus:
        yield f"<vcpu current='{spec.current}'>{spec.max_vcpus}</vcpu>"
        return
    enabled = [vcpu for vcpu in spec.vcpus if vcpu.enabled]
    named = {vcpu.id: vcpu for vcpu in spec.vcpus}
    yield f"<vcpu current='{len(enabled)}'>{spec.max_vcpus}</vcpu>"
    yield "<vcpus>"
    for number in range(spec.max_vcpus):
        vcpu = named.get(number, Vcpu(number, enabled=False))
        order = f" order='{enabled.index(vcpu) + 1}'" if vcpu.enabled else ""
        yield f"<vcpu id='{number}' enabled='{_yes(vcpu.enabled)}' hotpluggable='{_yes(vcpu.hotpluggable)}'{order}/>"
    yield "</vcpus>"


def _boot(spec: DomainSpec, files: Files, helped: bool) -> Iterator[str]:
    yield "<os><type arch='x86_64' machine='q35'>hvm</type>"
    if files.image is not None:
        line = " ".join(filter(None, (_KERNEL_LINE, ARCHES[NATIVE].kernel_args, spec.kernel_args)))
        yield f"<kernel>{files.image.kernel}</kernel><initrd>{files.image.initrd}</initrd>"
        yield f"<cmdline>{escape(line)}</cmdline>"
    if helped:  # see lab.spec: Linux takes it for VMware's
        yield "<smbios mode='sysinfo'/></os>"
        yield "<sysinfo type='smbios'><system><entry name='serial'>VMware-x</entry></system></sysinfo>"
    else:
        yield "</os>"


def _cpu(spec: DomainSpec, memory: int, helped: bool) -> str:
    inside = "<model fallback='forbid'>qemu64</model>"
    if spec.topology is not None:
        sockets, dies, cores, threads = spec.topology
        inside += f"<topology sockets='{sockets}' dies='{dies}' cores='{cores}' threads='{threads}'/>"
    if helped:
        inside += "<feature policy='disable' name='hypervisor'/>"
    if spec.cells:
        share = memory // len(spec.cells)
        cells = (f"<cell id='{i}' cpus='{cpus}' memory='{share}' unit='MiB'/>" for i, cpus in enumerate(spec.cells))
        inside += f"<numa>{''.join(cells)}</numa>"
    return f"<cpu mode='custom' match='exact' check='none'>{inside}</cpu>"


def _devices(spec: DomainSpec, files: Files) -> Iterator[str]:
    yield "<controller type='usb' model='none'/><memballoon model='none'/>"
    if files.disk is not None:
        yield "<disk type='file' device='disk'><driver name='qemu' type='qcow2' cache='unsafe' discard='unmap'/>"
        yield f"<source file={quoteattr(str(files.disk))}/><target dev='vda' bus='virtio'/></disk>"
    if spec.guest:
        yield "<rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>"
        yield f"<serial type='file'><source path={quoteattr(str(files.console))}/></serial>"
        yield f"<console type='unix'><source mode='bind' path={quoteattr(str(files.shell))}/>"
        yield "<target type='virtio'/></console>"
    if spec.agent:
        yield f"<channel type='unix'><target type='virtio' name='{AGENT_PORT}'/></channel>"


def command_line(spec: DomainSpec, files: Files) -> str:
    """Return the ``<qemu:commandline>`` of that spec, or nothing."""
    arguments: list[str] = []
    if spec.record:
        arguments += ["-chardev", f"socket,id=oracle,path={files.monitor},server=on,wait=off"]
        arguments += ["-mon", "chardev=oracle,mode=control", "-msg", "timestamp=on"]
        arguments += ["-trace", "enable=handle_qmp_command", "-trace", f"enable={ARCHES[NATIVE].trace}"]
    arguments += spec.arguments
    lines = "".join(f"<qemu:arg value={quoteattr(argument)}/>" for argument in arguments)
    return f"<qemu:commandline xmlns:qemu='{_QEMU_SCHEMA}'>{lines}</qemu:commandline>" if lines else ""


def _yes(value: bool) -> str:
    return "yes" if value else "no"
