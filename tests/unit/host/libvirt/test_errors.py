# SPDX-License-Identifier: Apache-2.0
"""libvirt's errors, as they were seen on 9.0 and 12.8: whose fault each is, and which exit status it has."""

from __future__ import annotations

import pytest
from vcpu_host.cli.exitcodes import of_error
from vcpu_host.libvirt import words as errors


class Said:
    """What libvirt.libvirtError offers."""

    def __init__(self, code: int, words: str) -> None:
        self._code = code
        self._words = words

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
        (38, "End of file while reading data: Input/output error", "libvirt-gone", 5),
        (39, "stream had I/O failure", "libvirt-gone", 5),
        (1, "internal error: client socket is closed", "libvirt-gone", 5),
        (
            1,
            "internal error: unable to execute QEMU command 'device_add': CPU[4] with APIC ID 4 exists",
            "slot-occupied",
            3,
        ),
        (84, "Operation not supported: vcpu '3' can't be unplugged", "libvirt-error", 3),
        (8, "invalid argument: vcpu '5' is already in requested state", "libvirt-error", 3),
    ],
)
def test_an_error_of_a_call_says_whose_fault_it_is(number: int, words: str, code: str, status: int) -> None:
    error = errors.of_call(Said(number, words), "plug vCPU 4")
    assert (error.reason.code, int(of_error(error))) == (code, status)
    assert words.rpartition("': ")[2] in error.reason.text


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
