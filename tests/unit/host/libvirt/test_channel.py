# SPDX-License-Identifier: Apache-2.0
"""The agent's channel of a domain: seen in each definition, and added only where it is missing."""

from __future__ import annotations

import pytest
from kit.fakes.libvirt_api import CHANNEL, CONFIG, CONTROLLER, LIVE, FakeDomain, FakeError, FakeLibvirt
from vcpu_host.core.domains import Definition
from vcpu_host.core.reason import Outcome
from vcpu_host.errors import OutcomeLostError, QemuGoneError, UsageError
from vcpu_host.libvirt.channel import add, look

_SERIAL = "<controller type='virtio-serial' index='0'/>"
_HAS, _ADDED = Definition(channel=True), Definition(channel=True, added=True)


@pytest.mark.parametrize(
    ("running", "defined"), [(CHANNEL, ""), ("", CHANNEL), (None, CHANNEL), ("", None), (CHANNEL, CHANNEL)]
)
async def test_a_look_tells_each_definition_apart_and_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, running: str | None, defined: str | None
) -> None:
    domain = FakeDomain("d", running, defined)
    fake = FakeLibvirt(domain).take_the_place(monkeypatch)
    found = await look("u", "d")
    expected = [None if each is None else Definition(each == CHANNEL) for each in (running, defined)]
    assert [found.running, found.persistent] == expected
    assert (found.xml, found.name, found.uuid, found.outcome) == (CHANNEL, "d", "uuid-of-d", Outcome.DONE)
    assert (domain.added, fake.opened) == ([], [("u", "read")])


@pytest.mark.parametrize(
    ("running", "defined", "added"),
    [
        (_SERIAL, _SERIAL, [(CHANNEL, CONFIG), (CHANNEL, LIVE)]),
        # libvirt puts the controller into definitions, and into no domain that runs.
        ("", "", [(CHANNEL, CONFIG), (CONTROLLER, LIVE), (CHANNEL, LIVE)]),
        (CHANNEL, "", [(CHANNEL, CONFIG)]),
        (_SERIAL, CHANNEL, [(CHANNEL, LIVE)]),
        (None, "", [(CHANNEL, CONFIG)]),
        (_SERIAL, None, [(CHANNEL, LIVE)]),
        (CHANNEL, CHANNEL, []),
    ],
)
async def test_it_is_added_only_where_it_is_missing(
    monkeypatch: pytest.MonkeyPatch, running: str | None, defined: str | None, added: list[tuple[str, int]]
) -> None:
    domain = FakeDomain("d", running, defined)
    FakeLibvirt(domain).take_the_place(monkeypatch)
    first, second = await add("u", "d"), await add("u", "d")
    assert domain.added == added
    for before, after in ((running, first.running), (defined, first.persistent)):
        assert after == (None if before is None else _HAS if before == CHANNEL else _ADDED)
    assert [second.running, second.persistent] == [None if each is None else _HAS for each in (running, defined)]
    assert first.outcome is second.outcome is Outcome.DONE


async def test_what_libvirt_refuses_is_told_in_its_words_and_the_rest_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    domain = FakeDomain("d", refuses={LIVE: FakeError(1, "internal error: No more available PCI slots")})
    FakeLibvirt(domain).take_the_place(monkeypatch)
    ended = await add("u", "d")
    assert ended.persistent == _ADDED
    assert ended.running is not None
    assert not ended.running.channel
    assert ended.running.reason is not None
    assert "No more available PCI slots" in ended.running.reason.text
    assert "start it again" in ended.running.reason.hint
    assert ended.outcome is Outcome.PARTIAL
    assert (await add("u", "d")).outcome is Outcome.PARTIAL  # a repeat tells the same


async def test_a_transient_domain_gets_no_hint_of_a_definition_that_it_has_not(monkeypatch: pytest.MonkeyPatch) -> None:
    domain = FakeDomain("d", defined=None, refuses={LIVE: FakeError(1, "no")})
    FakeLibvirt(domain).take_the_place(monkeypatch)
    ended = await add("u", "d")
    assert ended.running is not None
    assert ended.running.reason is not None
    assert ended.running.reason.hint == ""


async def test_a_channel_that_somebody_else_adds_meanwhile_is_there_and_was_not_added(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Quicker(FakeDomain):
        def attachDeviceFlags(self, xml: str, flags: int) -> int:  # noqa: N802 - libvirt's
            self.running = CHANNEL
            raise FakeError(9, "chardev already exists")

    FakeLibvirt(Quicker("d", defined=None, running=_SERIAL)).take_the_place(monkeypatch)
    assert (await add("u", "d")).running == _HAS


@pytest.mark.parametrize("call", ["attachDeviceFlags", "XMLDesc"])
async def test_a_libvirt_that_goes_in_the_middle_leaves_it_unknown_whether_the_channel_was_added(
    monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    class Going(FakeDomain):
        def attachDeviceFlags(self, xml: str, flags: int) -> int:  # noqa: N802 - libvirt's
            if call == "attachDeviceFlags":
                raise FakeError(1, "client socket is closed")
            return super().attachDeviceFlags(xml, flags)

        def XMLDesc(self, flags: int) -> str:  # noqa: N802 - libvirt's
            if self.added:
                raise FakeError(1, "client socket is closed")
            return super().XMLDesc(flags)

    FakeLibvirt(Going("d")).take_the_place(monkeypatch)
    with pytest.raises(OutcomeLostError, match="it is not known whether the channel was added"):
        await add("u", "d")


async def test_a_libvirt_that_goes_before_anything_was_to_be_added_has_changed_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Going(FakeDomain):
        looks = 0

        def XMLDesc(self, flags: int) -> str:  # noqa: N802 - libvirt's
            self.looks += 1
            if self.looks > 2:
                raise FakeError(1, "client socket is closed")
            return super().XMLDesc(flags)

    FakeLibvirt(Going("d", CHANNEL, CHANNEL)).take_the_place(monkeypatch)
    with pytest.raises(QemuGoneError):
        await add("u", "d")


async def test_a_domain_that_is_not_there_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeLibvirt().take_the_place(monkeypatch)
    with pytest.raises(UsageError) as error:
        await look("u", "d")
    assert error.value.reason.code == "no-such-domain"
