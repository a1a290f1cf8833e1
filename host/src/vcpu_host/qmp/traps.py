# SPDX-License-Identifier: Apache-2.0
"""QEMU's error messages that mean something else than they say, or that have a known remedy.

QMP has only a handful of error classes, and nearly everything is a GenericError: its text is all there is to go by. The
texts are those of QEMU 7.2 to 11.1; one that is not known here passes with QEMU's words alone.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from ..core import codes
from ..core.reason import Origin, Reason
from ..errors import QemuError
from .words import clean


class Trap(NamedTuple):
    """An error text, and what to make of it.

    ``pattern`` is compiled when the first error comes: most runs see none, and compiling them all takes 1 % of a list.
    """

    pattern: str
    code: codes.Code
    hint: str
    who: Origin = Origin.QEMU


def _trap(pattern: str, code: codes.Code, hint: str, who: Origin = Origin.QEMU) -> Trap:
    return Trap(pattern, code, hint, who)


#: First match wins. The function that says it stands beside each.
TRAPS: tuple[Trap, ...] = (
    # hw/i386/x86.c, x86_cpu_unplug_request_cb
    _trap(r"^Boot CPU is unpluggable$", codes.BOOT_CPU, 'it means "is not": slot 0 stays; choose another slot'),
    # hw/ppc/spapr.c, spapr_core_unplug_request; hw/loongarch/virt.c, virt_cpu_unplug_request
    _trap(r"^Boot CPU core may not be unplugged$", codes.BOOT_CPU, "the first core stays; choose another slot"),
    _trap(r"hot-unplug of boot cpu", codes.BOOT_CPU, "the boot CPU stays; choose another slot"),
    # hw/acpi/piix4.c and ich9.c: cpu_hotplug_legacy is still set, so the guest's ACPI has not run _INI
    _trap(
        r"device unplug request for not supported device type",
        codes.GUEST_NOT_READY,
        "the guest's ACPI is not up yet (the VM has not booted, or has no ACPI); wait until the guest is up and repeat",
    ),
    # hw/acpi/ich9.c, ich9_pm_device_pre_plug_cb and ich9_pm_device_unplug_request_cb
    _trap(
        r"^cpu hotplug with SMI wasn't enabled by firmware",
        codes.FIRMWARE_NO_HOTPLUG,
        "the firmware runs with SMM and cannot take new CPUs: wait until it has booted, update OVMF, "
        "or use a machine type newer than pc-q35-5.1",
        Origin.FIRMWARE,
    ),
    _trap(
        r"^cpu hot-unplug with SMI wasn't enabled by firmware",
        codes.FIRMWARE_NO_UNPLUG,
        "the firmware runs with SMM and cannot let CPUs go: update OVMF, or use a machine type newer than pc-q35-5.2",
        Origin.FIRMWARE,
    ),
    # hw/i386/x86.c, x86_cpu_unplug_request_cb
    _trap(
        r"^CPU hot unplug not supported without ACPI",
        codes.NO_ACPI,
        "the machine was started with acpi=off; only the guest can take CPUs offline",
    ),
    # hw/s390x/s390-virtio-ccw.c, s390_machine_device_unplug_request
    _trap(
        r"^CPU hot unplug not supported on this machine",
        codes.NO_UNPLUG,
        "QEMU cannot unplug CPUs here; vcpuctl offline takes them offline in the guest",
    ),
    # system/qdev-monitor.c, qdev_device_add_from_qdict and qmp_device_del
    _trap(
        r"not allowed while migrating",
        codes.MIGRATING,
        "wait until the migration has ended and repeat on the side that runs",
    ),
    # system/qdev-monitor.c, qdev_set_id
    _trap(
        r"^Duplicate device ID",
        codes.DUPLICATE_ID,
        "another device got this id just now, or is still being removed: repeat, and see vcpuctl plan for who has it",
    ),
    # hw/i386/x86.c, x86_cpu_pre_plug; hw/ppc/spapr.c, spapr_core_pre_plug; target/s390x; hw/loongarch/virt.c
    _trap(
        r"(\bexists$|already populated$|it already exists$)",
        codes.SLOT_OCCUPIED,
        "somebody else filled the slot meanwhile; look at vcpuctl list and repeat",
    ),
    _trap(
        r"(must be in range|valid index range|out of range$|^invalid core id|maximum core-id)",
        codes.OUT_OF_RANGE,
        "the machine has no such slot; vcpuctl list shows those that it has",
    ),
    _trap(
        r"^CPU [a-z]+-id is not set$", codes.PROPS_MISSING, "every property of the slot has to be passed back to QEMU"
    ),
    _trap(r"^invalid node-id, must be", codes.WRONG_NODE, "the slot belongs to another NUMA node"),
    _trap(
        r"(^Invalid CPU type, expected|^CPU core type should be|is not a valid device model name$)",
        codes.WRONG_TYPE,
        "the CPU type has to be the one that query-hotpluggable-cpus names for the slot",
    ),
    # qdev_get_device_class; hw/core/qdev-hotplug.c
    _trap(
        r"(expects a pluggable device type$|can not be hotplugged on this machine|does not support hotplugging"
        r"|does not support hot-plugging CPUs|feature 'query-hotpluggable-cpus' is not enabled)",
        codes.NO_HOTPLUG,
        "this machine type cannot plug CPUs; vcpuctl online and offline work on the CPUs it was started with",
    ),
    _trap(
        r"is already in the process of unplug",
        codes.UNPLUGGING,
        "the removal was asked for before and is still under way",
    ),
    # hw/core/numa.c, set_numa_options; hw/core/machine.c, machine_set_cpu_numa_node
    _trap(r"^Invalid node-id=", codes.NO_SUCH_NODE, "give QEMU the node at its start: -numa node,nodeid=N,memdev=..."),
    _trap(r"^no match found$", codes.NO_SUCH_SLOT, "the machine has no such slot"),
    _trap(r"^CPU is already assigned to node-id", codes.NODE_SET, "QEMU does not change it any more: start it anew"),
    # hw/core/machine-qmp-cmds.c, qmp_set_numa_node; system/vl.c, qmp_x_exit_preconfig
    _trap(
        r"permitted only before (the )?machine (initialization|has been (created|initialized))",
        codes.MACHINE_MADE,
        "this is for a QEMU that was started with --preconfig and still waits",
    ),
    # monitor/qmp.c: --preconfig
    _trap(
        r"permitted only after (the )?machine (initialization has completed|has been (created|initialized))",
        codes.PRECONFIG,
        "the VM was started with --preconfig and waits: vcpuctl numa assign gives its slots nodes and has it go on",
    ),
    # qapi/qmp-dispatch.c: a command that a monitor's allow-list or build lacks
    _trap(
        r"^The command \S+ has (not been found|been disabled)",
        codes.NO_SUCH_COMMAND,
        "this QEMU lacks a command that vcpuctl needs",
    ),
)


def explain(command: str, qmp_class: str, desc: str) -> QemuError:
    """Return QEMU's error as ours: its own words, with what we know of them."""
    text = clean(desc)
    if qmp_class == "DeviceNotFound":
        hint = "it is gone already, or never was; look at vcpuctl list"
        return QemuError(Reason(codes.DEVICE_NOT_FOUND, Origin.QEMU, text, hint), qmp_class)
    for trap in TRAPS:
        if re.search(trap.pattern, text):
            return QemuError(Reason(trap.code, trap.who, text, trap.hint), qmp_class)
    return QemuError(Reason(codes.QEMU_ERROR, Origin.QEMU, f"{text} (in answer to {command})"), qmp_class)


def lacks_property(error: QemuError, name: str) -> bool:
    """Return whether QEMU says that the object has no such property, or (it may have gone just now) that there is none.

    The words are "Property 'TYPE.NAME' not found" (qom/object.c, object_property_find_err).
    """
    return error.reason.code == codes.DEVICE_NOT_FOUND or name in error.reason.text


def lacks_ospm(error: QemuError) -> bool:
    """Return whether QEMU says that the machine has no ACPI of which query-acpi-ospm-status could tell.

    The words are "command is not supported, missing ACPI device" (monitor/qmp-cmds.c); or the command is not built in.
    """
    return error.reason.code == codes.NO_SUCH_COMMAND or "missing ACPI device" in error.reason.text


def bad_reply(command: str, what: str) -> QemuError:
    """Return the error that QEMU's reply does not have the shape that its documentation promises."""
    return QemuError(
        Reason(
            codes.BAD_REPLY,
            Origin.QEMU,
            f"the reply to {command} is not understood: {clean(what)}",
            "this QEMU is not one that vcpuctl knows; please report it with its version",
        )
    )
