# SPDX-License-Identifier: Apache-2.0
"""The autoscaler in a real ``vcpuctl serve``, with a real ``vcpud``: vCPUs follow the load of a fake guest."""

from __future__ import annotations

import json
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kit.component.cli import Vcpuctl, done, filled, online, run, stands, until
from kit.component.serving import Serving
from kit.fakes.qemu import FakeVm

ACT = """
[autoscale]
max = 4
mode = "act"
up_window = 0.5
up_pause = 0.5
down_window = 3
down_pause = 0
turn_pause = 0.5
boot_grace = 0
operator_hold = 3600
"""
#: The machine that the tests run on may be busy.
ANY_HOST = ("--host-pressure", "100")
OBSERVE = ACT.replace('mode = "act"', 'mode = "observe"')


@pytest.fixture
def vm() -> Iterator[FakeVm]:
    with tempfile.TemporaryDirectory(prefix="va", dir="/tmp") as name, FakeVm(Path(name)) as fake:
        yield fake


def load(vm: FakeVm, threads: float, **more: Any) -> None:
    """From now on so many threads compute in the guest."""
    new = vm.folder / "load.new"
    new.write_text(json.dumps({"threads": threads, **more}))
    new.rename(vm.folder / "load")


def asked(vm: FakeVm, step: str = "status") -> dict[str, Any]:
    """What the service says of the VM."""
    ended = run(vm, "autoscale", step)
    assert ended.status == 0, ended.stdout + ended.stderr
    (found,) = ended.json["vms"]
    return dict(found)


def says(vm: FakeVm, *codes: str) -> dict[str, Any]:
    """Wait until the service decides for one of these reasons."""
    found: dict[str, Any] = {}

    def decided() -> bool:
        found.clear()
        found.update(asked(vm))
        return found["decision"]["code"] in codes

    until(decided, what=f"{codes}")
    return found


def grows(vm: FakeVm, slots: set[int]) -> None:
    """Wait until exactly these slots are filled and online."""
    try:
        until(lambda: filled(vm) == slots and online(vm) == slots, what=f"{slots}")
    except AssertionError as failed:
        raise AssertionError(f"slots {filled(vm)}, online {online(vm)}; the service says {asked(vm)}") from failed


def test_vcpus_follow_the_load_up_and_down_and_the_history_tells_why(vm: FakeVm) -> None:
    with Serving({"web1": vm}, settings=ACT, options=ANY_HOST) as service:
        service.holds("web1")
        load(vm, 4)
        grows(vm, {0, 1, 2, 3})
        says(vm, "nobody-waits")
        load(vm, 0)
        grows(vm, {0})
        found = says(vm, "load-fits", "at-minimum")
    moves = [entry for entry in found["history"] if entry["acted"]]
    assert (moves[0]["online"], moves[0]["goal"], moves[0]["code"]) == (1, 4, "load-needs-more")
    assert moves[-1]["goal"] == 1
    assert {move["outcome"] for move in moves} == {"done"}
    assert found["guest"]["pressure"]


def test_a_vm_that_is_observed_is_told_of_and_left_alone(vm: FakeVm) -> None:
    with Serving({"web1": vm}, settings=OBSERVE, options=ANY_HOST) as service:
        service.holds("web1")
        load(vm, 4)
        found = says(vm, "load-needs-more")
        assert (found["mode"], found["decision"]["goal"], found["decision"]["online"]) == ("observe", 4, 1)
        assert not any(entry["acted"] for entry in found["history"])
    stands(vm, {0})
    assert vm.steer.commands("device_add") == []


def test_an_operators_command_ends_the_loops_own_is_carried_out_and_counts_for_a_while(vm: FakeVm) -> None:
    with Serving({"web1": vm}, settings=ACT, options=ANY_HOST) as service:
        service.holds("web1")
        rule = vm.steer.rule("guest:insert", "hold")
        load(vm, 4)
        vm.steer.wait(rule)
        says(vm, "under-way")
        vm.steer.release(rule)
        ended = run(vm, "scale", "2")
        assert (ended.status, ended.outcome) == (0, "done"), ended.stdout
        stands(vm, {0, 1})
        held = says(vm, "operator-holds")
        assert held["decision"]["goal"] == 2
        asked(vm, "on")
        grows(vm, {0, 1, 2, 3})


def test_it_is_switched_off_and_on_while_the_service_runs(vm: FakeVm) -> None:
    with Serving({"web1": vm}, settings=ACT, options=ANY_HOST) as service:
        service.holds("web1")
        assert asked(vm, "off")["decision"]["code"] == "autoscale-off"
        load(vm, 4)
        assert not says(vm, "autoscale-off")["enabled"]
        stands(vm, {0})
        asked(vm, "on")
        grows(vm, {0, 1, 2, 3})


def test_without_its_agent_the_loop_holds_and_tells_why_and_goes_on_after(vm: FakeVm) -> None:
    with Serving({"web1": vm}, settings=ACT, options=ANY_HOST) as service:
        service.holds("web1")
        says(vm, "load-fits", "at-minimum")
        vm.kill_agent()
        found = says(vm, "agent-absent", "agent-lost", "peer-gone", "no-answer", "no-agent")
        assert found["decision"]["direction"] == "hold"
        load(vm, 4)
        vm.start_agent()
        grows(vm, {0, 1, 2, 3})


@pytest.mark.crowd
def test_a_service_that_was_killed_goes_on_where_it_was_when_it_starts_anew(vm: FakeVm) -> None:
    with Serving({"web1": vm}, settings=ACT, options=ANY_HOST) as service:
        service.holds("web1")
        rule = vm.steer.rule("guest:insert", "hold")
        load(vm, 4)
        vm.steer.wait(rule)
        service.process.send_signal(signal.SIGKILL)
        service.process.wait()
        vm.steer.release(rule)
    with Serving({"web1": vm}, settings=ACT, options=ANY_HOST):
        grows(vm, {0, 1, 2, 3})


def test_an_agent_that_is_killed_under_an_operators_command_breaks_off_neither_that_nor_the_loop(vm: FakeVm) -> None:
    with Serving({"web1": vm}, settings=ACT, options=ANY_HOST) as service:
        service.holds("web1")
        says(vm, "load-fits", "at-minimum")
        rule = vm.steer.rule("guest:insert", "hold")
        with Vcpuctl(vm, "scale", "3") as command:
            vm.steer.wait(rule)
            vm.kill_agent()
            vm.start_agent()
            vm.steer.release(rule)
            ended = command.ends()
        assert (ended.status, ended.outcome) == (0, "done"), ended.stdout + ended.stderr
        stands(vm, {0, 1, 2})
        assert says(vm, "operator-holds")["guest"]["allowed"]


def test_a_guest_that_refuses_is_left_alone_for_longer_each_time(vm: FakeVm) -> None:
    done(vm, {0, 1}, "plug")
    vm.steer.call("x-fake-kernel-refuse", slot=1, online=True, errno=12)
    done(vm, {0}, "unplug")
    with Serving({"web1": vm}, settings=ACT.replace("max = 4", "max = 2"), options=ANY_HOST) as service:
        service.holds("web1")
        load(vm, 2)
        found = says(vm, "backs-off")
        assert "no-memory" in found["decision"]["text"]
    stands(vm, {0})


def test_a_guest_without_psi_is_judged_by_its_run_queues_and_doctor_says_so(vm: FakeVm) -> None:
    load(vm, 0, psi=False)
    with Serving({"web1": vm}, settings=ACT, options=ANY_HOST) as service:
        service.holds("web1")
        load(vm, 3, psi=False)
        grows(vm, {0, 1, 2})
        found = run(vm, "doctor").json["findings"]
    assert [each["text"] for each in found if each["code"] == "load-partly"]


def test_a_guest_whose_administrator_forbids_it_is_told_by_status_and_doctor() -> None:
    with tempfile.TemporaryDirectory(prefix="va", dir="/tmp") as name:
        Path(name, "vcpud.conf").write_text("load = false\n")
        with FakeVm(Path(name)) as vm, Serving({"web1": vm}, settings=ACT, options=ANY_HOST) as service:
            service.holds("web1")
            load(vm, 4)
            found = says(vm, "load-forbidden")
            assert not found["guest"]["allowed"]
            assert "load-forbidden" in [each["code"] for each in run(vm, "doctor").json["findings"]]
            stands(vm, {0})


def test_the_budget_of_the_host_is_shared_by_its_vms(vm: FakeVm) -> None:
    with Serving({"web1": vm}, settings=ACT, options=("--vcpu-budget", "3", *ANY_HOST)) as service:
        service.holds("web1")
        load(vm, 4)
        grows(vm, {0, 1, 2})
        assert says(vm, "over-budget")["decision"]["goal"] == 3


def test_without_a_service_or_a_table_nothing_scales_the_vm_and_that_is_said(vm: FakeVm) -> None:
    ended = run(vm, "autoscale", "status")
    assert (ended.status, ended.json["vms"][0]["error"]["code"]) == (3, "no-autoscale")
    with Serving({"web1": vm}) as service:
        service.holds("web1")
        ended = run(vm, "autoscale", "status")
        assert (ended.status, ended.json["vms"][0]["error"]["code"]) == (3, "no-autoscale")
        done(vm, {0, 1}, "plug")
