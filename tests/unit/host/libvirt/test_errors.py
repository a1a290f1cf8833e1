# SPDX-License-Identifier: Apache-2.0
"""libvirt's errors, as they were seen on 9.0 and 12.8: whose fault each is, and which exit status it has."""

from __future__ import annotations

import pytest
from vcpu_host.cli.exitcodes import of_error
from vcpu_host.errors import QemuError, QemuGoneError
from vcpu_host.libvirt import words as errors


class Said:
    """What libvirt.libvirtError offers. ``domain``: what part of libvirt says it (virErrorDomain)."""

    def __init__(self, code: int, words: str, domain: int = 10) -> None:
        self._code = code
        self._words = words
        self._domain = domain

    def get_error_domain(self) -> int:
        return self._domain

    def get_error_code(self) -> int:
        return self._code

    def get_error_message(self) -> str:
        return self._words


@pytest.mark.parametrize(
    ("number", "words", "code", "status"),
    [
        (42, "Domain not found: no domain with matching name 'x'", "no-such-domain", 2),
        (29, "operation forbidden: read only access prevents virDomainSetVcpu", "libvirt-denied", 3),
        (88, "access denied", "libvirt-denied", 3),
        (55, "Requested operation is not valid: domain is not running", "domain-off", 5),
        (38, "Unable to write to '/sys/fs/cgroup/vcpu3/cpuset.cpus': Invalid argument", "libvirt-error", 3),
        (38, "cannot set CPU affinity on process 4242: Invalid argument", "libvirt-error", 3),
        (38, "Unable to read from monitor: Connection reset by peer", "domain-off", 5),
        (38, "Unable to write to monitor: Broken pipe", "domain-off", 5),
        (1, "internal error: End of file from qemu monitor", "domain-off", 5),
        (9, "operation failed: domain is no longer running", "domain-off", 5),
        (1, "internal error: qemu unexpectedly closed the monitor", "domain-off", 5),
        (1, "internal error: client socket is closed", "libvirt-gone", 5),
        (
            1,
            "internal error: unable to execute QEMU command 'device_add': CPU[4] with APIC ID 4 exists",
            "slot-occupied",
            3,
        ),
        (68, "Timed out during operation: cannot acquire state change lock (held by monitor=x)", "libvirt-busy", 3),
        (68, "Timed out during operation: vcpu unplug request timed out", "libvirt-timeout", 3),
        (84, "Operation not supported: vcpu '3' can't be unplugged", "libvirt-error", 3),
        (8, "invalid argument: vcpu '5' is already in requested state", "libvirt-error", 3),
    ],
)
def test_an_error_of_a_call_says_whose_fault_it_is(number: int, words: str, code: str, status: int) -> None:
    error = errors.of_call(Said(number, words), "plug vCPU 4")
    assert (error.reason.code, int(of_error(error))) == (code, status)
    assert words.rpartition("': ")[2] in error.reason.text


@pytest.mark.parametrize(
    ("number", "words", "unclear"),
    [
        (38, "Unable to write to '/sys/fs/cgroup/vcpu3/cpuset.cpus': Invalid argument", True),
        (1, "internal error: qemu didn't report thread id for vcpu '3'", True),
        (9, "operation failed: failed to set up the vCPU", True),
        (68, "Timed out during operation: no answer", True),
        (68, "Timed out during operation: cannot acquire state change lock (held by monitor=x)", False),
        (1, "internal error: unable to execute QEMU command 'device_add': no", False),
        (55, "Requested operation is not valid: cgroup CPU controller is not mounted", False),
        (84, "Operation not supported: vcpu '3' can't be unplugged", False),
        (8, "invalid argument: vcpu '5' is already in requested state", False),
    ],
)
def test_a_failure_in_the_middle_of_a_call_is_told_from_a_refusal_of_it(number: int, words: str, unclear: bool) -> None:
    error = errors.of_call(Said(number, words), "plug vCPU 3")
    assert isinstance(error, errors.UnclearError) is unclear


_SYSTEM, _RPC, _REMOTE, _QEMU = 0, 7, 13, 10


@pytest.mark.parametrize(
    ("number", "words", "domain", "alive", "gone"),
    [
        (38, "End of file while reading data: Input/output error", _RPC, True, True),
        (39, "stream had I/O failure", _RPC, True, True),
        (38, "Cannot send data: Broken pipe", _REMOTE, True, True),
        (38, "Unable to write to '/sys/fs/cgroup/vcpu3/cpuset.cpus': Invalid argument", _QEMU, True, False),
        (38, "Unable to open '/proc/4242/stat': No such file or directory", _SYSTEM, True, False),
        (38, "Cannot recv data: Connection reset by peer", _SYSTEM, False, True),
        (1, "internal error: received hangup event on socket", _RPC, False, True),
        (1, "internal error: received hangup event on socket", _RPC, True, False),
        (55, "Requested operation is not valid: cgroup CPU controller is not mounted", _QEMU, False, False),
    ],
)
def test_a_connection_is_lost_if_its_own_part_of_libvirt_says_so_or_it_is_dead(
    number: int, words: str, domain: int, alive: bool, gone: bool
) -> None:
    error = errors.of_call(Said(number, words, domain), "plug vCPU 4", alive=alive)
    assert error.reason.code == ("libvirt-gone" if gone else "libvirt-error")
    assert isinstance(error, QemuGoneError if gone else QemuError)


@pytest.mark.parametrize(
    ("number", "words", "code", "status"),
    [
        (38, "Failed to connect socket to '/run/libvirt/libvirt-sock': No such file or directory", "libvirt-gone", 5),
        (38, "Failed to connect socket to '/run/libvirt/libvirt-sock': Permission denied", "libvirt-denied", 3),
        (45, "authentication failed: access denied by policy", "libvirt-denied", 3),
        (38, "Cannot recv data: ssh: connect to host nowhere port 22: No route to host", "libvirt-gone", 5),
        (8, "invalid argument: could not parse URI", "bad-uri", 2),
    ],
)
def test_a_libvirt_that_is_not_reached_says_why(number: int, words: str, code: str, status: int) -> None:
    error = errors.of_opening(Said(number, words), "qemu:///system")
    assert (error.reason.code, int(of_error(error))) == (code, status)
    assert words in error.reason.text
    assert error.reason.hint


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("root@host2: Permission denied (publickey,password).: Connection reset by peer", "ssh-add"),
        ("root@host2: Permission denied (gssapi-keyex,keyboard-interactive).", "ssh-add"),
        ("Host key verification failed.: Connection reset by peer", "host's key"),
    ],
)
def test_a_login_that_ssh_has_not_got_is_no_matter_of_libvirts_rights(words: str, hint: str) -> None:
    error = errors.of_opening(Said(38, f"Cannot recv data: {words}", 7), "qemu+ssh://root@host2/system")
    assert (error.reason.code, int(of_error(error))) == ("libvirt-denied", 3)
    assert hint in error.reason.hint
    assert "group libvirt" not in error.reason.hint
