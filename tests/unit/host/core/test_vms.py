# SPDX-License-Identifier: Apache-2.0
"""Which VMs are configured, what the other processes lack, and the files that would add them."""

from __future__ import annotations

import re
import shlex
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vcpu_host.core import codes
from vcpu_host.core.qemu_argv import Chardev, CommandLine
from vcpu_host.core.reason import Origin, Reason
from vcpu_host.core.vms import Configured, Monitor, Process, join, valid_name

_PORT = Chardev("socket", "/a", listens=True)
_WHY = Reason(codes.NOT_PERMITTED, Origin.VCPUCTL, "because")


def _process(pid: int, *monitors: Monitor, name: str = "web", libvirt: bool = False) -> Process:
    return Process(pid, "ada", pid, CommandLine(name, port=_PORT, libvirt=libvirt), monitors)


def _reached(path: str) -> Monitor:
    return Monitor(path, path, key=path)


def test_a_process_is_configured_if_a_file_leads_to_one_of_its_monitors() -> None:
    process = _process(7, _reached("/a"), _reached("/b"))
    vms = join([Configured("x", "/d/x.toml", "/link", key="/b")], [process], None, "/d")
    assert vms.found[0].configured == ("x",)
    assert vms.found[0].offer is None
    assert vms.pids(vms.configured[0]) == (7,)


def test_a_file_that_another_one_hides_stands_for_no_process() -> None:
    files = [
        Configured("x", "/user/x.toml", "/b", key="/b"),
        Configured("x", "/system/x.toml", "/a", hidden_by="/user/x.toml", key="/a"),
    ]
    vms = join(files, [_process(7, _reached("/a")), _process(8, _reached("/b"))], None, "/d")
    assert [found.configured for found in vms.found] == [(), ("x",)]
    assert [vms.pids(file) for file in files] == [(8,), ()]


def test_files_without_a_socket_stand_for_no_process_without_one() -> None:
    vms = join([Configured("x", "/d/x.toml", "/gone")], [_process(7, Monitor("/q", None, _WHY))], None, "/d")
    assert vms.found[0].configured == ()


def test_the_first_monitor_that_is_reached_is_offered_and_the_others_trouble_is_none() -> None:
    (found,) = join([], [_process(7, Monitor("/q", None, _WHY), _reached("/r"))], None, "/d").found
    assert found.offer is not None
    assert tomllib.loads(found.offer.text) == {"qmp": "/r"}
    assert found.lacks == ()


def test_a_process_that_is_not_reached_has_the_trouble_of_each_monitor_and_no_offer() -> None:
    (found,) = join([], [_process(7, Monitor("/q", None, _WHY), Monitor("/r", None, _WHY))], None, "/d").found
    assert found.lacks == (_WHY, _WHY)
    assert found.offer is None


def test_a_qemu_of_libvirts_has_that_reason_alone_and_no_offer() -> None:
    (found,) = join([], [_process(7, _reached("/q"), libvirt=True)], None, "/d").found
    assert [reason.code for reason in found.lacks] == ["libvirt-owned"]
    assert found.offer is None


@pytest.mark.parametrize(
    ("file", "names"),
    [
        (Configured("x", "/d/x.toml", libvirt="qemu:///system", domain="web"), ("x",)),
        (Configured("x", "/d/x.toml", libvirt="qemu+ssh://h/system", domain="web"), ()),
        (Configured("x", "/d/x.toml", libvirt="qemu:///system", domain="other"), ()),
    ],
)
def test_a_qemu_of_libvirts_is_known_by_the_file_of_its_domain(file: Configured, names: tuple[str, ...]) -> None:
    (found,) = join([file], [_process(7, libvirt=True)], None, "/d").found
    assert found.configured == names
    assert [reason.code for reason in found.lacks] == ([] if names else ["libvirt-owned"])
    assert all("vcpuctl --domain web list" in reason.hint for reason in found.lacks)


def test_a_socket_is_the_younger_processs_whatever_their_ids() -> None:
    old = Process(9, "ada", 1, CommandLine(port=_PORT), (_reached("/q"),))
    young = Process(3, "ada", 2, CommandLine(port=_PORT), (_reached("/q"),))
    vms = join([Configured("x", "/d/x.toml", "/q", key="/q")], [young, old], None, "/d")
    assert [found.configured for found in vms.found] == [("x",), ()]
    assert [reason.code for reason in vms.found[1].lacks] == ["socket-taken"]
    assert "process 3" in vms.found[1].lacks[0].text


def test_what_was_not_seen_is_told() -> None:
    assert join([], [], _WHY, "/d").unseen == _WHY


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("web1", "web1"),
        ("Web_1.prod-2", "Web_1.prod-2"),
        ("two words", "two-words"),
        ("../etc/passwd", "etc-passwd"),
        ("-n", "n"),
        ("ü", "vm"),
        ("", "vm"),
        ("a/", "a"),
        ("x" * 200, "x" * 64),
    ],
)
def test_a_guests_name_becomes_a_valid_one(text: str, name: str) -> None:
    assert valid_name(text, set()) == name


def test_a_name_that_is_taken_gets_a_number_that_is_not() -> None:
    assert valid_name("a", {"a", "a-2", "a-4"}) == "a-3"


@given(st.text(), st.text(min_size=1).filter(lambda text: not re.search("[\ud800-\udfff]", text)))
def test_an_offer_is_one_printable_command_and_says_the_socket_exactly(guest: str, path: str) -> None:
    (found,) = join([], [_process(7, _reached(path), name=guest)], None, "/d d").found
    assert found.offer is not None
    assert re.fullmatch(r"/d d/[A-Za-z0-9][A-Za-z0-9._-]*\.toml", found.offer.file)
    assert tomllib.loads(found.offer.text) == {"qmp": path}
    assert found.offer.command.isprintable()
    made, written = found.offer.command.split(" && ", 1)
    assert shlex.split(made) == ["mkdir", "-p", "/d d"]
    assert shlex.split(written) == ["printf", "%s\\n", found.offer.text, f">{found.offer.file}"]
