# SPDX-License-Identifier: Apache-2.0
"""By the record alone: what libvirt's XML shows to be impossible is refused before anything is asked of libvirt."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from kit.sim.views import INFO
from vcpu_host.core import codes
from vcpu_host.core.diagnosis import diagnose
from vcpu_host.core.guest import AgentInfo, GuestCpu, GuestView
from vcpu_host.core.model import Owner
from vcpu_host.core.planning.plan import Operation, Plan, Request
from vcpu_host.core.planning.planner import plan
from vcpu_host.core.platforms.x86 import X86
from vcpu_host.core.view import VmView, join
from vcpu_host.libvirt import domain_xml
from vcpu_host.libvirt.domain_xml import DomainRecord
from vcpu_host.libvirt.record_vmm import RecordVmm

ACPI = "<features><acpi/><apic/></features>"
NO_X2APIC = "<feature policy='disable' name='x2apic'/>"


def xml(most: int, there: int, *, machine: str = "pc-q35-10.0", features: str = ACPI, cpu: str = "") -> str:
    vcpus = "".join(
        f"<vcpu id='{n}' enabled='{'yes' if n < there else 'no'}' hotpluggable='{'yes' if n else 'no'}'/>"
        for n in range(most)
    )
    return (
        f"<domain type='kvm'><name>web1</name><uuid>u</uuid><vcpu current='{there}'>{most}</vcpu>"
        f"<vcpus>{vcpus}</vcpus><os><type arch='x86_64' machine='{machine}'>hvm</type></os>{features}"
        f"<cpu mode='custom'><model>EPYC</model>{cpu}</cpu><devices><channel type='unix'>"
        "<target type='virtio' name='org.vcpuctl.agent.0' state='connected'/></channel></devices></domain>"
    )


class Domain:
    """A running domain with that XML."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.owner = Owner("libvirt 12.8.0", definition=True)
        self.connection = SimpleNamespace(on_loss=lambda hear: None, raw=SimpleNamespace(getVersion=lambda: 10_000_000))
        self.raw = SimpleNamespace(state=lambda: (1, 1), jobStats=lambda: {"type": 0})

    async def call(self, _what: str, function: Any) -> Any:
        return function()

    async def record(self) -> DomainRecord:
        return domain_xml.read(self._text)


async def seen(text: str, *names: str, agent: AgentInfo = INFO) -> VmView:
    """The domain, with guest CPUs that have these names."""
    cpus = tuple(GuestCpu(number, name, online=True) for number, name in enumerate(names))
    host = await RecordVmm(cast("Any", Domain(text))).look()
    return join(host, GuestView(1, "b", "i", cpus), agent=agent)


def refused(decided: Plan) -> set[str]:
    assert not decided.steps
    return {str(refusal.reason.code) for refusal in decided.refusals}


def slot(number: int) -> Request:
    return Request(Operation.PLUG, selectors=(str(number),))


ONE = "acpi:\\_SB_.CPUS.C000"


async def test_an_apic_id_that_the_cpu_model_does_not_have_is_refused() -> None:
    view = await seen(xml(300, 1, cpu=NO_X2APIC), ONE)
    assert refused(plan(view, slot(255))) == {codes.APIC_ID_TOO_LARGE}
    assert refused(plan(view, Request(Operation.PLUG, 298))) == {codes.NOT_ENOUGH}
    assert [step.slot.index for step in plan(view, slot(254)).steps] == [254]


async def test_the_gaps_that_the_topology_leaves_between_apic_ids_count() -> None:
    topology = "<topology sockets='34' dies='1' cores='3' threads='2'/>"  # 8 ids a socket, 6 of them used
    view = await seen(xml(204, 1, cpu=topology + NO_X2APIC), ONE)
    assert [step.slot.index for step in plan(view, slot(191)).steps] == [191], "socket 31: 248 to 253"
    assert refused(plan(view, slot(192))) == {codes.APIC_ID_TOO_LARGE}, "socket 32: from 256 on"


@pytest.mark.parametrize("cpu", ["", "<feature policy='require' name='x2apic'/>", "<feature name='x2apic'/>"])
async def test_what_the_xml_does_not_deny_the_cpu_model_has(cpu: str) -> None:
    view = await seen(xml(300, 1, cpu=cpu), ONE)
    assert [step.slot.index for step in plan(view, slot(255)).steps] == [255]


async def test_a_domain_without_acpi_is_told_as_one() -> None:
    agent = INFO._replace(platform="boot", environment=INFO.environment._replace(acpi=False, possible="0"))
    view = await seen(xml(4, 1, features="<features><apic/></features>"), "boot:0", agent=agent)
    assert refused(plan(view, Request(Operation.PLUG, 1))) == {codes.NO_ACPI}


async def test_a_cpu_of_an_old_machine_type_is_known_by_the_apic_id_that_the_topology_gives_it() -> None:
    topology = "<topology sockets='2' dies='1' cores='3' threads='1'/>"
    names = ("acpi:\\_SB_.CP00", "acpi:\\_SB_.CP01")
    view = await seen(xml(6, 2, machine="pc-i440fx-2.6", cpu=topology), *names)
    (step,) = plan(view, slot(3)).steps
    assert step.firmware_ids == ("acpi:\\_SB_.CP04",), "3 is the gap between the sockets"
    assert view.online_vcpus == 2


@pytest.mark.parametrize(
    "request_",
    [
        Request(Operation.PLUG, 1),
        slot(2),
        Request(Operation.UNPLUG, 1),
        Request(Operation.SCALE, 3),
        Request(Operation.SCALE, 1),
        Request(Operation.SCALE, 1, in_guest=True),
        Request(Operation.OFFLINE, selectors=("1",)),
    ],
    ids=lambda request: f"{request.operation} {request.count}",
)
async def test_where_nobody_can_tell_which_cpu_is_which_nothing_is_begun(
    request_: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(X86, "firmware_ids", lambda self, host, slot: ())
    view = await seen(xml(4, 2), "acpi:\\_SB_.CP00", "acpi:\\_SB_.CP01")
    assert refused(plan(view, request_)) == {codes.UNKNOWN_PLATFORM}
    assert "unplugged-cpus" not in {finding.code for finding in diagnose(view)}
