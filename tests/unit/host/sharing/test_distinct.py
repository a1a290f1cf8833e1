# SPDX-License-Identifier: Apache-2.0
"""Of two names of one VM the second is refused, whether it is opened here or another process has it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from vcpu_host.core import codes
from vcpu_host.core.identity import DomainId, ProcessId, SocketId, VmIdentity
from vcpu_host.core.planning.plan import Operation, Request
from vcpu_host.documents import Document
from vcpu_host.errors import UsageError
from vcpu_host.local import directory
from vcpu_host.local.names import known_by
from vcpu_host.local.target import Target
from vcpu_host.sharing import vm as module
from vcpu_host.sharing.answers import Say
from vcpu_host.sharing.calls import Call, Kind, Part
from vcpu_host.sharing.distinct import Distinct
from vcpu_host.sharing.hub import Hub
from vcpu_host.sharing.interruption import Interruption
from vcpu_host.sharing.vm import Vm

_QEMU, _THREAD = ProcessId(10, 100, 4), ProcessId(12, 101, 4)
_DOMAIN = DomainId("6c1a", "host")
_PLUG = Call(Kind.RUN, Request(Operation.PLUG, 1))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (VmIdentity(_QEMU, listens=True, first_thread=_THREAD), VmIdentity(_QEMU, first_thread=_THREAD), True),
        (VmIdentity(_QEMU), VmIdentity(ProcessId(10, 102, 4)), False),
        (VmIdentity(_DOMAIN), VmIdentity(_DOMAIN), True),
        (VmIdentity(_DOMAIN), VmIdentity(DomainId("6c1a", "other")), False),
        (VmIdentity(_DOMAIN, first_thread=_THREAD), VmIdentity(_QEMU, first_thread=_THREAD), True),
        (VmIdentity(_DOMAIN), VmIdentity(_QEMU, first_thread=_THREAD), False),
        (VmIdentity(SocketId("/a", 1)), VmIdentity(SocketId("/b", 2)), False),
    ],
)
def test_two_names_are_one_vm_by_the_process_the_domain_or_the_first_thread(
    one: VmIdentity, other: VmIdentity, same: bool
) -> None:
    distinct = Distinct()
    distinct.claim("web1", known_by(one))
    distinct.claim("web1", known_by(one))  # opened once more
    if same:
        for _ in range(2):
            with pytest.raises(UsageError, match="web1 and mon2 are one VM") as error:
                distinct.claim("mon2", known_by(other))
            assert error.value.reason.code == codes.SAME_NAMES
    else:
        distinct.claim("mon2", known_by(other))


def test_what_was_refused_has_claimed_nothing() -> None:
    distinct = Distinct()
    distinct.claim("web1", known_by(VmIdentity(_QEMU)))
    with pytest.raises(UsageError):
        distinct.claim("mon2", known_by(VmIdentity(_QEMU, first_thread=_THREAD)))
    distinct.claim("db1", known_by(VmIdentity(_THREAD)))


class _Service:
    """Has one VM at whatever place it is asked for; ``knows`` whether it can say which one that is."""

    def __init__(self, *, knows: bool) -> None:
        self.ran = 0
        self._knows = knows

    async def answer(self, call: Call, say: Say, interruption: Interruption) -> Document:
        del say, interruption
        if call.kind is Kind.IDENTITY:
            if not self._knows:
                return (Call.from_json({"call": "nothing that is known"})).to_json()
            return {"vm": ["10-100-4"]}
        self.ran += call.changes
        return {"outcome": "done"}


@pytest.mark.parametrize("call", [_PLUG, Call(Kind.PLAN, _PLUG.request)], ids=["an order", "a plan"])
@pytest.mark.parametrize("knows", [True, False], ids=["", "of an earlier version"])
async def test_the_service_is_asked_which_vm_it_has_by_a_name_before_it_is_asked_for_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call, knows: bool
) -> None:
    monkeypatch.setattr(directory, "service_socket", lambda: str(tmp_path / "service"))
    monkeypatch.setattr(module, "_may_use_locks_of_service", lambda: False)
    service, distinct = _Service(knows=knows), Distinct()
    hub = Hub(Part.KEEPS, "serve", service.answer)
    await hub.listen(tmp_path / "service")
    vms = {
        name: Vm(Target(str(tmp_path / name)), "a test", recognise=partial(distinct.claim, name))
        for name in ("web1", "mon2")
    }
    assert await vms["web1"].ask(call, lambda message: None) == {"outcome": "done"}
    if knows:
        with pytest.raises(UsageError) as error:
            await vms["mon2"].ask(call, lambda message: None)
        assert error.value.reason.code == codes.SAME_NAMES
        assert await vms["web1"].ask(call, lambda message: None) == {"outcome": "done"}
    else:
        assert await vms["mon2"].ask(call, lambda message: None) == {"outcome": "done"}
    assert service.ran == 2 * call.changes
    await hub.close()
