# SPDX-License-Identifier: Apache-2.0
"""``vcpuctl log`` for people, and which entries it asks for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from vcpu_host.cli.layout import Block, compose
from vcpu_host.cli.log import about, blocks
from vcpu_host.cli.parser import build_parser
from vcpu_host.cli.usage import read
from vcpu_host.core.log_entry import Caller, LogEntry, LoggedReason, Subject
from vcpu_host.core.planning.plan import Operation
from vcpu_host.core.reason import Origin, Outcome, Reason
from vcpu_host.errors import UsageError
from vcpu_host.local import target

_WHY = LoggedReason(Reason("guest-ignored", Origin.GUEST, "the kernel shows no such CPU", "look at its log"), "2-3")
_ENTRY = LogEntry(
    time=0.0,
    subject=Subject("web1", "/run/vm1/qmp.sock", 7),
    caller=Caller(0, "root", "vcpuctl plug 3"),
    operation=Operation.PLUG,
    requested="3",
    outcome=Outcome.PARTIAL,
    reasons=(_WHY,),
    slots="1-3",
    phases={},
    elapsed=1.5,
    plugged=(1, 2),
    online=(1, None),
)


def _lines(shown: Sequence[Block], width: int | None = None) -> list[str]:
    return ["".join(text for text, _ in line) for line in compose(shown, width)]


def test_the_table_has_a_row_an_entry_and_the_reasons_below_it(monkeypatch: pytest.MonkeyPatch) -> None:
    head, row, reason = _lines(blocks([_ENTRY]))
    assert head.split() == ["TIME", "VM", "WHO", "OPERATION", "OUTCOME", "PLUGGED", "ONLINE", "SECONDS"]
    assert row.split()[2:] == ["web1", "root", "plug", "3", "partial", "1", "to", "2", "1", "to", "?", "1.500"]
    assert reason.endswith("slots 2-3: guest: the kernel shows no such CPU; look at its log")
    assert reason.startswith(row[:19])
    assert _lines(blocks([])) == ["no entries"]


def test_on_a_narrow_terminal_nothing_is_cut_off() -> None:
    words = " ".join(_lines(blocks([_ENTRY]), 40)).split()
    assert {"partial;", "web1;", "root;", "SECONDS", "1.500"} <= set(words)


@pytest.fixture
def vms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(target, "directories", lambda: (tmp_path,))
    (tmp_path / "web1.toml").write_text('qmp = "/web1/qmp"\n')
    (tmp_path / "bad.toml").write_text("qmp = 5\n")
    return tmp_path


def _about(*words: str, **environment: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return about(read(build_parser(), [*words, "log"]), environment)


@pytest.mark.usefixtures("vms")
def test_a_vm_is_its_name_and_its_socket_and_one_that_has_gone_is_its_name() -> None:
    assert _about("--vm", "web1") == (("web1",), ("/web1/qmp",))
    assert _about("--vm", "gone") == (("gone",), ())
    assert _about("--vm", "gone", "--vm", "web1") == (("gone", "web1"), ("/web1/qmp",))
    assert _about("--vm", "web*") == _about("--vm", "w?b1") == (("web1",), ("/web1/qmp",))
    assert _about("--vm", "web*", "--vm", "gone") == (("web1", "gone"), ("/web1/qmp",))
    with pytest.raises(UsageError, match="called like db"):
        _about("--vm", "db*")
    assert _about("--all", VCPUCTL_VM="web1") == ((), ())
    assert _about("--qmp", "unix:/q,server=on") == ((), ("/q",))
    assert _about(VCPUCTL_VM="web1") == (("web1",), ("/web1/qmp",))
    assert _about() == ((), ())
    for name in ("bad", "../x"):
        with pytest.raises(UsageError):
            _about("--vm", name)


def test_a_domain_is_its_libvirt_and_its_name_whether_it_has_a_file_or_is_named(vms: Path) -> None:
    (vms / "db1.toml").write_text('libvirt = "qemu+ssh://h/system"\ndomain = "db"\n')
    assert _about("--vm", "db1") == (("db1",), ("qemu+ssh://h/system db",))
    assert _about("--connect", "qemu+ssh://h/system", "--domain", "db") == ((), ("qemu+ssh://h/system db",))
    assert _about("--domain", "db", LIBVIRT_DEFAULT_URI="u:///x", VCPUCTL_VM="web1") == ((), ("u:///x db",))
    assert _about("--domain", "db") == ((), ("qemu:///system db",))


@pytest.mark.usefixtures("vms")
def test_options_that_name_no_vm_or_two_are_refused_as_other_commands_do() -> None:
    refused: tuple[tuple[tuple[str, ...], dict[str, str], str], ...] = (
        (("--qmp", ""), {}, "not-a-socket"),
        (("--qmp", "unix:"), {}, "not-a-socket"),
        (("--connect", "test:///default"), {}, "bad-usage"),
        (("--no-monitor", "--vm", "web1"), {}, "bad-usage"),
        (("--agent", "/a"), {}, "no-vm"),
        (("--all", "--agent", "/a"), {}, "many-vms"),
        (("--vm", "web1", "--vm", "web2", "--connect", "test:///default"), {}, "many-vms"),
        ((), {"VCPUCTL_VM": "web1", "VCPUCTL_QMP": "/q"}, "two-vms"),
    )
    for words, environment, code in refused:
        with pytest.raises(UsageError) as error:
            _about(*words, **environment)
        assert error.value.reason.code == code, words
    assert _about("--vm", "web1", "--agent", "/a") == (("web1",), ("/web1/qmp",))
