# SPDX-License-Identifier: Apache-2.0
"""The hosts with KVM that QEMU can emulate, one for each architecture of ``HOSTS``: see ``lab.nested``.

x86 has AMD's SVM with nested paging (``-cpu max``), and Linux' kvm_amd. POWER9 has the hypervisor's calls for nested
guests (``cap-nested-hv``, docs/system/ppc/pseries.rst), and Linux' kvm-hv.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from kit.lab.errors import LabError
from kit.lab.qemu import SUITES
from kit.lab.spec import VmSpec

#: The ports of the host by which the lab sees its VM, and what is behind each: see ``lab.relay``.
RECORD, ORACLE, SHELL = "vm-record", "vm-oracle", "vm-shell"
JOINTS = {RECORD: "record", ORACLE: "oracle.sock", SHELL: "shell.sock"}
#: Sizes of the disks with the QEMUs and with the VM's root, in MB: they are in the saved states.
QEMUS_MB, ROOT_MB = 640, 1024


@dataclass(frozen=True)
class HostSpec(VmSpec):
    """The host, with ports for the lab's eyes on its VM."""

    ports: ClassVar[tuple[str, ...]] = tuple(JOINTS)


@dataclass(frozen=True)
class Emulated:
    """A host with KVM, and what follows from its architecture for a VM in it."""

    #: The drives are filled when the host is to have a VM: so it need not be booted anew for another VM.
    spec: HostSpec
    #: What modprobe is told, so that there is a /dev/kvm.
    module: str
    #: The versions of QEMU on its disk.
    qemus: tuple[str, ...]
    #: For the VM's kernel: few words, since each letter on the console costs it a millisecond, and no work in vain.
    quiet: str
    #: The VM, without KVM, in which the packages get onto the VM's disk: changes of a VmSpec.
    plain: Mapping[str, Any]
    #: Whether it can be saved with a VM in it that has run.
    saved: bool


def drives(qemus: str, root: str) -> tuple[str, ...]:
    """QEMU's arguments for the host's drives vdb and vdc, from what -blockdev is told of where their content is."""
    argv: list[str] = []
    for name, content in (("qemus", qemus), ("vm-root", root)):
        argv += ["-blockdev", f"node-name={name},read-only=on,{content}"]
        argv += ["-device", f"virtio-blk-pci,drive={name},id={name}-disk"]
    return tuple(argv)


def _nothing(size_mb: int) -> str:
    return f"driver=null-co,size={size_mb << 20},read-zeroes=on"


_host = partial(
    HostSpec,
    smp="2",
    kernel_args="mitigations=off nokaslr",
    packages=("python3-vcpu-proto", "vcpu-host"),
    ready="true",
    extra_args=drives(_nothing(QEMUS_MB), _nothing(ROOT_MB)),
)

#: By Debian's name of the architecture.
HOSTS: Mapping[str, Emulated] = {
    "amd64": Emulated(
        _host(guest="kvm-host-amd64", cpu="max", memory_mb=2560),
        module="kvm_amd nested=0 avic=0",
        qemus=tuple(SUITES),
        quiet="quiet loglevel=3 mitigations=off nokaslr audit=0 no_timer_check no5lvl",
        plain={},
        saved=True,
    ),
    # 11.1 alone: what the nesting needs, and what the VM's QEMU does with vCPUs' numbers (since 9.1)
    "ppc64el": Emulated(
        _host(guest="kvm-host-ppc64el", machine="pseries,x-vof=on,cap-nested-hv=on", qemu="11.1", memory_mb=3584),
        module="kvm_hv",
        qemus=("11.1",),
        quiet="quiet loglevel=3 mitigations=off nokaslr audit=0",
        plain={
            "machine": "pseries,x-vof=on",
            "qemu": "11.1",
            "smp": "2,maxcpus=16,sockets=1,cores=8,threads=2",
        },
        saved=False,
    ),
}


def host_for(spec: VmSpec) -> Emulated:
    """The host of a VM under KVM. Raises LabError if QEMU emulates none for it."""
    if spec.arch.name not in HOSTS:
        raise LabError(f"{spec.guest}: QEMU emulates KVM's hosts for {', '.join(HOSTS)} alone")
    return HOSTS[spec.arch.name]
