# SPDX-License-Identifier: Apache-2.0
"""What people see of a libvirt's domains and of the agent's channel, and what these commands take."""

from __future__ import annotations

from pathlib import Path

import pytest
from kit import documents as held
from kit.fakes.libvirt_api import CHANNEL, LIVE, FakeDomain, FakeError, FakeLibvirt
from vcpu_host.cli import channel, domains
from vcpu_host.cli.layout import compose
from vcpu_host.cli.main import main
from vcpu_host.core import codes
from vcpu_host.core.domains import AgentChannel, Definition, ListedDomain, join
from vcpu_host.core.reason import Origin, Reason
from vcpu_host.core.vms import Configured
from vcpu_host.documents.domains import of_channel, of_domains
from vcpu_host.local import target

_WHY = Reason(codes.LIBVIRT_ERROR, Origin.LIBVIRT, "no slot", "start it again")


@pytest.fixture(autouse=True)
def _places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One vms.d for all, with one domain."""
    (tmp_path / "one.toml").write_text('libvirt = "qemu:///system"\ndomain = "web1"')
    monkeypatch.setattr(target, "directories", lambda: (tmp_path, tmp_path / "system"))
    for name in ("VCPUCTL_VM", "VCPUCTL_QMP", "LIBVIRT_DEFAULT_URI"):
        monkeypatch.delenv(name, raising=False)


def _lines(blocks: object, width: int | None = None) -> list[str]:
    return ["".join(text for text, _ in line).rstrip() for line in compose(list(blocks), width)]  # type: ignore[call-overload]


def test_each_domain_has_a_row_and_below_it_what_it_lacks() -> None:
    listed = [
        ListedDomain("web1", "u1", "running", True, 2, 8, channel=True, connected=True),
        ListedDomain("web2", "u2", "shutoff", True, 1, 8, channel=False),
        ListedDomain("web3", "u3", "paused", False, 1, 8, channel=True, connected=False),
        ListedDomain("web4", "u4", "running", True, trouble=_WHY),
        ListedDomain("web5", "u5", "running", True, 1, 8, channel=True),
    ]
    files = [Configured(f"vm{n}", f"/d/vm{n}", libvirt="qemu:///system", domain=f"web{n}") for n in range(1, 6)]
    document = of_domains(join("qemu:///system", listed, files, "/d"))
    shown = _lines(domains.blocks(document))
    assert shown[0].startswith("DOMAIN")
    assert [line.split() for line in shown[1:6]] == [
        ["web1", "running", "2/8", "open", "vm1"],
        ["web2", "shut", "off", "1/8", "no", "vm2"],
        ["web3", "paused", "1/8", "closed", "vm3"],
        ["web4", "running", "-", "-", "vm4"],
        ["web5", "running", "1/8", "yes", "vm5"],
    ]
    assert "domain web4: no slot; start it again" in shown
    assert sum("no-channel" in line or "has no channel" in line for line in shown) == 1
    wide = _lines(domains.blocks(document, wide=True))
    assert wide[1].split()[-2:] == ["yes", "u1"]
    assert wide[3].split()[-2:] == ["no", "u3"]


def test_a_domain_that_is_not_configured_has_the_command_that_adds_it_in_one_line_on_any_terminal() -> None:
    document = of_domains(join("u", [ListedDomain("w", "u1", "running", True, 1, 2, channel=True)], [], "/d"))
    assert f"  {document['domains'][0]['add']['command']}" in _lines(domains.blocks(document), 30)


def test_a_libvirt_without_domains_is_told() -> None:
    assert _lines(domains.blocks(of_domains(join("u:///x", [], [], "/d")))) == ["u:///x has no domain"]


def _channel(running: Definition | None, persistent: Definition | None) -> AgentChannel:
    return AgentChannel(CHANNEL, "qemu:///system", "web1", "u", running, persistent)


@pytest.mark.parametrize(
    ("running", "persistent", "told"),
    [
        (Definition(channel=True), Definition(channel=True), ["running domain has it", "definition has it"]),
        (Definition(channel=True, added=True), None, ["the running domain: added", "transient"]),
        (None, Definition(channel=True), ["is off", "definition has it"]),
        (Definition(channel=False, reason=_WHY), None, ["does not have it: no slot; start it again", "transient"]),
    ],
)
def test_of_each_definition_it_is_said_whether_it_has_the_channel(
    running: Definition | None, persistent: Definition | None, told: list[str]
) -> None:
    document = of_channel(_channel(running, persistent))
    first, *lines = _lines(channel.blocks(document, applied=True))
    assert first == CHANNEL
    assert len(lines) == len(told)
    assert all(words in line for words, line in zip(told, lines, strict=True))


def test_a_look_that_finds_it_missing_says_what_adds_it() -> None:
    document = of_channel(_channel(Definition(channel=False), Definition(channel=True)))
    assert _lines(channel.blocks(document, applied=False))[-1] == (
        "vcpuctl channel --connect qemu:///system --domain web1 --apply adds it"
    )
    assert not any("--apply" in line for line in _lines(channel.blocks(document, applied=True)))


@pytest.mark.parametrize(
    ("words", "status", "shown"),
    [
        (["vms", "--connect", "qemu:///system"], 0, '"configured": ["one"]'),
        (["--connect", "qemu:///system", "vms"], 0, '"configured": ["one"]'),
        (["vms", "--connect", "qemu:///session"], 0, '"configured": []'),
        (["--domain", "web1", "vms", "--connect", "qemu:///system"], 2, "vcpuctl vms takes no VM"),
        (["channel", "--domain", "web1"], 0, '"channel": true'),
        (["--vm", "one", "channel"], 0, '"channel": true'),
        (["channel", "--domain", "web2", "--connect", "qemu:///system"], 0, '"channel": false'),
        (["channel", "--domain", "web2", "--apply"], 6, "PCI"),
        (["channel", "--domain", "nobody"], 2, "no-such-domain"),
        (["--qmp", "/q", "channel"], 2, "reached by its sockets"),
        (["channel"], 2, "no-vm"),
    ],
)
def test_the_command_line_gives_documents_and_statuses(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], status: int, shown: str
) -> None:
    refused = FakeDomain("web2", refuses={LIVE: FakeError(1, "internal error: No more available PCI slots")})
    FakeLibvirt(FakeDomain("web1", CHANNEL, CHANNEL), refused).take_the_place(monkeypatch)
    assert main(["-o", "json", *words]) == status
    written = capsys.readouterr().out
    held.check_output(written)
    assert shown in written


@pytest.mark.parametrize(("words", "lines"), [([], 3), (["-q"], 0)])
def test_quiet_says_nothing_of_what_went_as_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], lines: int
) -> None:
    FakeLibvirt(FakeDomain("web1")).take_the_place(monkeypatch)
    assert main([*words, "channel", "--domain", "web1", "--apply"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == lines
