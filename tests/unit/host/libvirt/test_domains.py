# SPDX-License-Identifier: Apache-2.0
"""Which domains a libvirt has, by a connection that can change nothing."""

from __future__ import annotations

import pytest
from kit.fakes.libvirt_api import CHANNEL, FakeDomain, FakeError, FakeLibvirt
from vcpu_host.core.domains import ListedDomain
from vcpu_host.errors import UsageError
from vcpu_host.libvirt.domains import listed


async def test_running_ones_and_those_that_are_off_are_listed_with_their_vcpus_and_the_channel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened = CHANNEL.replace("/></", " state='connected'/></")
    fake = FakeLibvirt(
        FakeDomain("on", running=opened, defined=None),
        FakeDomain("off", running=None, defined=CHANNEL, vcpu="<vcpu>2</vcpu>"),
    ).take_the_place(monkeypatch)
    assert await listed("qemu:///system") == [
        ListedDomain("on", "uuid-of-on", "running", False, 1, 4, channel=True, connected=True),
        ListedDomain("off", "uuid-of-off", "shutoff", True, 2, 2, channel=True),
    ]
    assert fake.opened == [("qemu:///system", "read")]


@pytest.mark.parametrize("call", ["state", "XMLDesc"])
async def test_a_domain_that_ends_meanwhile_is_none(monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    gone = FakeDomain("gone", fails={call: FakeError(42, "Domain not found")})
    FakeLibvirt(gone, FakeDomain("here")).take_the_place(monkeypatch)
    assert [each.name for each in await listed("u")] == ["here"]


async def test_a_domain_that_cannot_be_read_is_told_with_the_reason_and_hides_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stuck = FakeDomain("stuck", fails={"XMLDesc": FakeError(68, "cannot acquire state change lock")})
    FakeLibvirt(stuck, FakeDomain("fine")).take_the_place(monkeypatch)
    first, second = await listed("u")
    assert first.trouble is not None
    assert "state change lock" in first.trouble.text
    assert (first.name, first.state, first.vcpus, first.channel) == ("stuck", "running", None, None)
    assert (second.name, second.trouble) == ("fine", None)


async def test_a_libvirt_of_other_machines_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeLibvirt(kind="LXC").take_the_place(monkeypatch)
    with pytest.raises(UsageError, match="LXC") as error:
        await listed("lxc:///system")
    assert error.value.reason.code == "bad-uri"
