# SPDX-License-Identifier: Apache-2.0
"""What libvirt's errors mean, and what is to be said of its domains.

The numbers are virErrorNumber (include/libvirt/virterror.h); which error comes when was seen on 9.0 and 12.8.
"""

from __future__ import annotations

import re
from typing import Any

from ..core import codes
from ..core.model import Slot
from ..core.reason import Origin, Reason
from ..core.text import printable
from ..errors import QemuError, QemuGoneError, RefusedError, UsageError, VcpuctlError
from ..qmp.traps import explain

_INTERNAL_ERROR = 1
_INVALID_ARG = 8
_OPERATION_FAILED = 9
_OPERATION_DENIED = 29
_SYSTEM_ERROR = 38
_RPC = 39
_NO_DOMAIN = 42
_AUTH_FAILED = 45
_OPERATION_INVALID = 55
_CONFIG_UNSUPPORTED = 67
_OPERATION_TIMEOUT = 68
_AUTH_CANCELLED = 79
NO_DOMAIN_METADATA = 80
_AUTH_UNAVAILABLE = 94
_OPERATION_UNSUPPORTED = 84
_ACCESS_DENIED = 88

#: virErrorDomain: what the parts of libvirt are that know of the connection itself, and its driver for QEMU.
_FROM_RPC, _FROM_REMOTE, _FROM_QEMU = 7, 13, 10
#: Errors of what libvirt was in the middle of, and none of its refusals of what it does not begin.
_MIDWAY = (_INTERNAL_ERROR, _OPERATION_FAILED, _SYSTEM_ERROR, _OPERATION_TIMEOUT)
#: libvirt's words for a QEMU that ends, or has ended, while it is asked (src/qemu/qemu_monitor.c and qemu_domain.c).
_QEMU_ENDS = re.compile(r"(from|to) (qemu )?monitor\b|closed the monitor|monitor was closed|no longer running")

#: virConnectCloseReason.
_REASONS = {
    0: "libvirt's daemon or the connection failed",
    1: "the other end closed it: libvirt's daemon has ended, or was restarted",
    2: "nothing was heard of the other end for too long",
    3: "it was closed here",
}
_AGAIN = "when it is there again, run the same command once more: it goes on from what was done"


class UnclearError(QemuError):
    """libvirt has failed, and does not say whether QEMU has done before what libvirt was asked for.

    After a CPU was plugged, for example, libvirt places its thread: a cgroup that refuses that fails the whole call.
    """


def number(error: Any) -> int:
    """Return which error it is."""
    return int(error.get_error_code() or 0)


def said(error: Any) -> str:
    """Return libvirt's words."""
    return printable(error.get_error_message() or str(error), 500)


def place(uri: str) -> str:
    """Return a URI as people know it: without what follows a question mark, such as keys and commands of ssh."""
    return printable(uri.partition("?")[0], 200)


def closed_by(reason: int) -> str:
    """Return why a connection was closed, in words."""
    return _REASONS.get(reason, f"libvirt says reason {reason}")


def lost(uri: str, why: str) -> Reason:
    """Return that the connection to a libvirt is lost."""
    text = f"the connection to libvirt ({place(uri)}) is lost: {why}"
    return Reason(codes.LIBVIRT_GONE, Origin.LIBVIRT, text, _AGAIN)


def silent(uri: str, seconds: float, what: str) -> Reason:
    """Return that libvirt leaves a call unanswered."""
    text = f"libvirt ({place(uri)}) has not answered to {what} within {seconds:g} s"
    hint = "see whether its daemon hangs, or the way there; then look again with vcpuctl list"
    return Reason(codes.LIBVIRT_SILENT, Origin.LIBVIRT, text, hint)


def of_opening(error: Any, uri: str) -> VcpuctlError:
    """Return what it means that libvirt could not be reached."""
    text, code = said(error), number(error)
    where = place(uri)
    by_ssh = _by_ssh(text)
    if by_ssh:
        return RefusedError(Reason(codes.LIBVIRT_DENIED, Origin.LIBVIRT, f"libvirt ({where}): {text}", by_ssh))
    if code in (_AUTH_FAILED, _AUTH_CANCELLED, _AUTH_UNAVAILABLE, _ACCESS_DENIED) or "Permission denied" in text:
        hint = "be a member of the group libvirt there, or be allowed by polkit (org.libvirt.unix.manage)"
        return RefusedError(Reason(codes.LIBVIRT_DENIED, Origin.LIBVIRT, f"libvirt ({where}): {text}", hint))
    if code == _INVALID_ARG or "driver" in text:
        hint = "a URI is like qemu:///system or qemu+ssh://root@host/system; see https://libvirt.org/uri.html"
        return UsageError(Reason(codes.BAD_URI, Origin.VCPUCTL, f"{where}: {text}", hint))
    hint = f"see whether libvirt's daemon runs there: virsh -c '{where}' list"
    return QemuGoneError(Reason(codes.LIBVIRT_GONE, Origin.LIBVIRT, f"libvirt ({where}) is not reached: {text}", hint))


def _by_ssh(text: str) -> str:
    """Return what to do about a login that ssh has not got; empty if that is not the matter."""
    if re.search(r"Permission denied \([a-z,-]*\)", text):  # the ways in which one could have logged in
        return (
            "that was ssh's login, and not libvirt's: have ssh find a key that this user there accepts (ssh-add, or "
            "keyfile=PATH in the URI), and try it with: ssh USER@HOST true"
        )
    if "Host key verification failed" in text:
        return "ssh does not know this host's key, or knows another: connect once by hand: ssh USER@HOST true"
    return ""


def not_qemu(uri: str, kind: str) -> UsageError:
    """Return the error that a URI is of another driver of libvirt's than QEMU's."""
    text = f"{place(uri)} is libvirt's driver for {printable(kind)}, and vcpuctl resizes QEMU's VMs"
    return UsageError(Reason(codes.BAD_URI, Origin.VCPUCTL, text, "give a URI that begins with qemu"))


def turned_away(text: str) -> bool:
    """Return whether sshd has closed the connection before any login, as it does by chance while it has many."""
    return "exchange_identification" in text or "Not allowed at this time" in text or "MaxStartups" in text


def of_call(error: Any, what: str, *, alive: bool = True) -> VcpuctlError:
    """Return what it means that a call failed; ``what`` it was to do. ``alive``: the connection lives all the same."""
    text, code = said(error), number(error)
    if code == _NO_DOMAIN:
        hint = "vcpuctl vms --connect URI shows the domains"
        return UsageError(Reason(codes.NO_SUCH_DOMAIN, Origin.LIBVIRT, text, hint))
    if code in (_OPERATION_DENIED, _ACCESS_DENIED):
        hint = "who has a read-only connection, or no rights on this domain, can only look: vcpuctl --no-monitor list"
        return RefusedError(Reason(codes.LIBVIRT_DENIED, Origin.LIBVIRT, text, hint))
    if code == _OPERATION_INVALID and "not running" in text:
        return domain_off(text)
    if _of_the_connection(error, alive=alive):
        return QemuGoneError(Reason(codes.LIBVIRT_GONE, Origin.LIBVIRT, f"{text} (in {what})", _AGAIN))
    if error.get_error_domain() == _FROM_QEMU and _QEMU_ENDS.search(text):
        return domain_off(f"{text} (in {what})")
    by_qemu = re.search(r"unable to execute QEMU command '[^']*': (.*)", text)
    if by_qemu:
        return explain(what, "GenericError", by_qemu[1])
    others = busy(error, what)
    if others is not None:
        return QemuError(others)
    kind = UnclearError if code in _MIDWAY else QemuError
    if code == _OPERATION_TIMEOUT:
        hint = "it may still happen: look again with vcpuctl list"
        return kind(Reason(codes.LIBVIRT_TIMEOUT, Origin.LIBVIRT, f"{text} (in {what})", hint))
    return kind(Reason(codes.LIBVIRT_ERROR, Origin.LIBVIRT, f"{text} (in {what})", _hint(text)))


def busy(error: Any, what: str) -> Reason | None:
    """Return that others keep the domain busy, so that nothing was begun; None if an error says something else."""
    if number(error) != _OPERATION_TIMEOUT or "state change lock" not in said(error):
        return None
    hint = "wait until that has ended, then run the same command again: it goes on from what was done"
    return Reason(codes.LIBVIRT_BUSY, Origin.LIBVIRT, f"{said(error)} (in {what})", hint)


def _of_the_connection(error: Any, *, alive: bool) -> bool:
    """Return whether an error means that the connection is lost.

    Its number alone does not say so: a file of the host that cannot be written is a VIR_ERR_SYSTEM_ERROR, too.
    """
    code = number(error)
    if code in (_SYSTEM_ERROR, _RPC) and error.get_error_domain() in (_FROM_RPC, _FROM_REMOTE):
        return True
    return "client socket is closed" in said(error) or (code in (_INTERNAL_ERROR, _SYSTEM_ERROR, _RPC) and not alive)


def of_set_vcpu(error: QemuError, *, enabled: bool) -> QemuError:
    """Return what an error of virDomainSetVcpu means, in the codes that operations know from QEMU itself.

    The record may follow between a look and the call ("already in requested state"), and libvirt may look at a QEMU
    that is in the middle of removing other CPUs ("qemu reported thread id for inactive vcpu", seen on 12.8).
    """
    text, code = error.reason.text, error.reason.code
    if "already in requested state" in text:
        code = codes.SLOT_OCCUPIED if enabled else codes.DEVICE_NOT_FOUND
    elif not enabled and "qemu reported thread id for inactive vcpu" in text:
        code = codes.UNPLUGGING
    return error if code == error.reason.code else QemuError(error.reason._replace(code=code))


def of_waiting(error: QemuError) -> bool:
    """Return whether libvirt has asked for a removal, and has then not seen its end in time."""
    return error.reason.code == codes.LIBVIRT_TIMEOUT and "unplug request timed out" in error.reason.text


def domain_off(text: str) -> QemuGoneError:
    """Return the error that the domain does not run."""
    return QemuGoneError(Reason(codes.DOMAIN_OFF, Origin.LIBVIRT, text, "start it: virsh start DOMAIN"))


def not_known(error: QemuError) -> QemuGoneError:
    """Return the error that nobody can say whether QEMU has done what libvirt has failed at."""
    return QemuGoneError(error.reason._replace(hint=f"it may have been done: {_AGAIN}"))


def vanished(text: str) -> QemuGoneError:
    """Return the error that a domain that was found is there no more."""
    hint = "it ends with its QEMU if it has no definition; vcpuctl vms --connect URI shows the domains"
    return QemuGoneError(Reason(codes.DOMAIN_OFF, Origin.LIBVIRT, f"the domain is gone: {text}", hint))


def _hint(text: str) -> str:
    if "followed by non-hotpluggable online vcpus" in text:
        return "vcpuctl scale N --config changes those after it, too; or virsh edit, and hotpluggable='yes' for them"
    if "can't be unplugged" in text or "hotpluggable" in text:
        return (
            "a <vcpus> block with hotpluggable='yes' makes a CPU of the start removable (virsh edit, then start anew)"
        )
    return ""


def cores() -> Reason:
    """Return why nothing is plugged where a slot is a core of several threads (POWER).

    There libvirt's vCPUs are the threads, and one call takes those of a core; that was not tried.
    """
    return Reason(
        codes.LIBVIRT_CORES,
        Origin.VCPUCTL,
        "this machine plugs whole cores, each several vCPUs of libvirt's: vcpuctl does not do that by way of libvirt",
        "virsh setvcpu DOMAIN FIRST-LAST --enable --live plugs one; vcpuctl online and offline work in the guest",
    )


def not_hotpluggable(index: int) -> Reason:
    """Return why a vCPU of the domain's start stays."""
    return Reason(
        codes.NOT_HOTPLUGGABLE,
        Origin.LIBVIRT,
        f"libvirt keeps vCPU {index}, since the domain was started with it",
        "for the next start: virsh edit, and a <vcpus> block in which this vCPU has hotpluggable='yes'; vcpuctl "
        "offline takes it offline in the guest",
    )


def stays_kept(why: Reason, index: int) -> Reason:
    """Return why a definition goes on having a vCPU as one that stays."""
    text = f"it starts with vCPU {index} as one that cannot be unplugged then: {why.text}"
    return why._replace(text=text)


def behind(slot: Slot) -> Reason:
    """Return what it means that libvirt does not know of the CPU in a slot."""
    name = slot.device_id or slot.path
    return Reason(
        codes.BEHIND_LIBVIRT,
        Origin.LIBVIRT,
        f"the CPU in slot {slot.index} ({name}) was plugged behind libvirt's back: a save of this domain cannot be "
        "loaded, and a migration fails",
        f"vcpuctl offline {slot.index}, then have QEMU remove it the way it was plugged (device_del {name})",
    )
