# SPDX-License-Identifier: Apache-2.0
"""libvirt's XML of a domain: what it says of vCPUs and of the agent's channel."""

from __future__ import annotations

import pytest
from vcpu_host.errors import QemuError
from vcpu_host.libvirt.domain_xml import read


def _domain(vcpus: str, devices: str = "") -> str:
    return f"<domain><name>web1</name><uuid>u-1</uuid>{vcpus}<devices>{devices}</devices></domain>"


def test_a_list_of_vcpus_says_of_each_whether_it_is_there_and_may_go() -> None:
    record = read(
        _domain(
            "<vcpu placement='static' current='3'>4</vcpu><vcpus>"
            "<vcpu id='0' enabled='yes' hotpluggable='no' order='1'/><vcpu id='1' enabled='no' hotpluggable='yes'/>"
            "<vcpu id='2' enabled='yes' hotpluggable='yes' order='3'/>"
            "<vcpu id='3' enabled='yes' hotpluggable='yes' order='2'/></vcpus>"
        )
    )
    assert (record.name, record.uuid, record.most) == ("web1", "u-1", 4)
    assert [record.has(number) for number in range(5)] == [True, False, True, True, False]
    assert [record.vcpus[number].removable for number in range(4)] == [False, True, True, True]


@pytest.mark.parametrize(("vcpu", "there"), [("<vcpu current='2'>4</vcpu>", 2), ("<vcpu>4</vcpu>", 4)])
def test_without_a_list_the_first_ones_are_there_for_good(vcpu: str, there: int) -> None:
    record = read(_domain(vcpu))
    assert [record.has(number) for number in range(4)] == [number < there for number in range(4)]
    assert not any(record.vcpus[number].removable for number in range(there))


@pytest.mark.parametrize(
    ("target", "channel", "connected"),
    [
        ("<target type='virtio' name='org.vcpuctl.agent.0' state='connected'/>", True, True),
        ("<target type='virtio' name='org.vcpuctl.agent.0' state='disconnected'/>", True, False),
        ("<target type='virtio' name='org.vcpuctl.agent.0'/>", True, None),
        ("<target type='virtio' name='org.qemu.guest_agent.0' state='connected'/>", False, None),
    ],
)
def test_the_agents_channel_is_told_by_its_name(target: str, channel: bool, connected: bool | None) -> None:
    record = read(_domain("<vcpu>1</vcpu>", f"<channel type='unix'>{target}</channel>"))
    assert (record.channel, record.connected) == (channel, connected)


@pytest.mark.parametrize(
    "xml",
    ["", "<domain>", "<domain><vcpu>many</vcpu></domain>", "<domain><vcpu>1</vcpu><vcpus><vcpu/></vcpus></domain>"],
)
def test_what_libvirt_does_not_write_is_an_error_and_no_guess(xml: str) -> None:
    with pytest.raises(QemuError) as error:
        read(xml)
    assert error.value.reason.code == "bad-reply"
