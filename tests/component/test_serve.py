# SPDX-License-Identifier: Apache-2.0
"""``vcpuctl serve``: it keeps the VMs of vms.d, and others are served by it, by lines and by gRPC."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from kit.component.cli import SOON, Vcpuctl, done, run, stands, until
from kit.component.serving import Serving
from kit.component.watching import Watching
from kit.fakes.qemu import FakeVm
from vcpu_proto.host.v1 import host_pb2 as pb


@pytest.fixture
def vm() -> Iterator[FakeVm]:
    with tempfile.TemporaryDirectory(prefix="ve", dir="/tmp") as name, FakeVm(Path(name)) as fake:
        yield fake


def test_commands_are_carried_out_by_the_service_that_keeps_the_vm_one_at_a_time(vm: FakeVm) -> None:
    with Serving({"web1": vm}) as service, Watching(vm) as watch:
        service.holds("web1")
        done(vm, {0, 1}, "plug")
        watch.shows(online=2)
        rule = vm.steer.rule("guest:insert", "hold")
        with Vcpuctl(vm, "plug") as first:
            vm.steer.wait(rule)
            second = run(vm, "plug")
            assert (second.status, second.outcome) == (3, "vm-busy")
            assert run(vm, "list").slots[2]["state"] == "plugged"
            vm.steer.release(rule)
            assert first.ends().outcome == "done"
        done(vm, {0}, "unplug", "2")
        watch.shows(online=1)


@pytest.mark.parametrize("monitor", ["qmp", "qmp2"])
def test_a_second_file_of_one_vm_is_told_as_that_until_it_is_the_only_one(vm: FakeVm, monitor: str) -> None:
    with Serving({"web1": vm}) as service:
        service.holds("web1")
        service.moves("web2", vm, monitor)
        until(lambda: "web1 and web2 are one VM" in service.trouble("web2"))
        assert service.held("web1")
        service.forgets("web1")
        service.holds("web2")
        done(vm, {0, 1}, "plug")


def test_a_command_that_the_service_answers_loads_nothing_that_reaches_a_vm(vm: FakeVm) -> None:
    def loaded(*words: str) -> set[str]:
        command = [sys.executable, "-X", "importtime", "-m", "vcpu_host.cli.main", "--qmp", str(vm.qmp), *words]
        environment = {**os.environ, "XDG_RUNTIME_DIR": str(vm.folder)}
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=SOON)
        return {line.rpartition("|")[2].strip() for line in ended.stderr.splitlines()}

    costly = {"grpc", "qemu.qmp", "vcpu_host.vm.coordinator", "vcpu_host.sharing.hold"}
    with Serving({"web1": vm}) as service:
        service.holds("web1")
        for words in (("-o", "json", "list"), ("-o", "json", "plug")):
            assert not loaded(*words) & costly
    stands(vm, {0, 1})
    assert loaded("-o", "json", "list") >= costly


def test_other_programs_look_and_resize_by_grpc(vm: FakeVm) -> None:
    with Serving({"web1": vm}) as service, service.host() as host:
        service.holds("web1")
        (known,) = host.ListVms(pb.ListVmsRequest()).vms
        assert (known.name, known.held, known.trouble) == ("web1", True, "")
        order = pb.Order(operation=pb.Order.OPERATION_SCALE, count=3)
        assert len(host.Plan(pb.PlanRequest(vm="web1", order=order)).document["steps"]) == 2
        *_, last = host.Apply(pb.ApplyRequest(vm="web1", order=order))
        assert last.result["outcome"] == "done"
        stands(vm, {0, 1, 2})
        assert host.List(pb.ListRequest(vm="web1")).document["vm"]["online_vcpus"] == 3
        assert len(host.Doctor(pb.DoctorRequest(vm="web1")).document["findings"]) > 0
        views = host.Watch(pb.WatchRequest(vm="web1"))
        assert next(views).document["vm"]["online_vcpus"] == 3
        done(vm, {0, 1}, "unplug")
        while next(views).document["vm"]["online_vcpus"] != 2:
            pass
        views.cancel()


def _asked_for_a_plug(vm: FakeVm) -> int:
    """How many commands QEMU gets while a vCPU is plugged and unplugged again."""
    before = len(vm.steer.commands())
    done(vm, {0, 1}, "plug")
    done(vm, {0}, "unplug")
    return len(vm.steer.commands()) - before


def test_the_looks_at_qemu_do_not_grow_with_the_number_of_those_that_watch(vm: FakeVm) -> None:
    with Serving({"web1": vm}) as service, service.host() as host:
        service.holds("web1")
        one = host.Watch(pb.WatchRequest(vm="web1"), timeout=SOON)
        next(one)
        of_one = _asked_for_a_plug(vm)
        more = [host.Watch(pb.WatchRequest(vm="web1"), timeout=SOON) for _ in range(15)]
        for call in more:
            next(call)
        assert _asked_for_a_plug(vm) < 3 * of_one  # some looks more or less are a matter of chance


@pytest.mark.parametrize(
    ("name", "order", "status", "code"),
    [
        ("web2", pb.Order(operation=pb.Order.OPERATION_PLUG), grpc.StatusCode.NOT_FOUND, "no-such-vm"),
        ("web1", pb.Order(), grpc.StatusCode.INVALID_ARGUMENT, "bad-usage"),
        ("web1", pb.Order(operation=pb.Order.OPERATION_SCALE), grpc.StatusCode.INVALID_ARGUMENT, "bad-usage"),
        (
            "web1",
            pb.Order(operation=pb.Order.OPERATION_PLUG, policy="best"),
            grpc.StatusCode.INVALID_ARGUMENT,
            "bad-call",
        ),
        (
            "web1",
            pb.Order(operation=pb.Order.OPERATION_PLUG, slots=["99"]),
            grpc.StatusCode.INVALID_ARGUMENT,
            "bad-slot",
        ),
    ],
)
def test_what_does_not_fit_ends_with_a_status_a_code_and_what_to_do(
    vm: FakeVm, name: str, order: pb.Order, status: grpc.StatusCode, code: str
) -> None:
    with Serving({"web1": vm}) as service, service.host() as host:
        service.holds("web1")
        with pytest.raises(grpc.RpcError) as refused:
            list(host.Apply(pb.ApplyRequest(vm=name, order=order)))
        metadata: Any = refused.value.trailing_metadata()
        said = dict(metadata)
        assert (refused.value.code(), said["vcpuctl-code"], bool(said["vcpuctl-hint"])) == (status, code, True)
        stands(vm, {0})


def test_a_killed_service_leaves_the_vm_to_everybody_and_the_next_command_goes_on(vm: FakeVm) -> None:
    with Serving({"web1": vm}) as service:
        service.holds("web1")
        rule = vm.steer.rule("guest:insert", "hold")
        with Vcpuctl(vm, "scale", "3") as command:
            vm.steer.wait(rule)
            service.process.kill()
            ended = command.ends()
        assert (ended.status, ended.outcome) == (4, "service-lost")
        vm.steer.release(rule)
    done(vm, {0, 1, 2}, "scale", "3")


def test_a_service_that_is_stopped_has_its_caller_told_what_became_of_each_slot(vm: FakeVm) -> None:
    rule = vm.steer.rule("guest:insert", "hold")
    with Serving({"web1": vm}) as service:
        service.holds("web1")
        with Vcpuctl(vm, "plug") as command:
            vm.steer.wait(rule)
            service.process.terminate()
            ended = command.ends()
        assert (ended.status, ended.outcome, ended.code(1)) == (4, "unknown", "interrupted"), ended.stdout
        assert service.process.wait(SOON) == 0
    vm.steer.release(rule)
    done(vm, {0, 1}, "scale", "2")


def test_a_service_that_is_stopped_tells_programs_by_grpc_what_became_of_each_slot(vm: FakeVm) -> None:
    rule = vm.steer.rule("guest:insert", "hold")
    with Serving({"web1": vm}) as service, service.host() as host:
        service.holds("web1")
        messages = host.Apply(pb.ApplyRequest(vm="web1", order=pb.Order(operation=pb.Order.OPERATION_PLUG)))
        vm.steer.wait(rule)
        service.process.terminate()
        *_, last = messages
        assert last.result["outcome"] == "unknown"
        assert [slot["reason"]["code"] for slot in last.result["slots"]] == ["interrupted"]
        assert service.process.wait(SOON) == 0
    vm.steer.release(rule)


def test_a_watch_by_grpc_goes_on_when_the_vm_is_reached_otherwise_and_when_it_is_lent(vm: FakeVm) -> None:
    with Serving({"web1": vm}) as service, service.host() as host:
        service.holds("web1")
        views = host.Watch(pb.WatchRequest(vm="web1"))
        assert next(views).document["vm"]["online_vcpus"] == 1
        service.moves("web1", vm, "qmp2")
        done(vm, {0, 1}, "plug")
        while next(views).document["vm"]["online_vcpus"] != 2:
            pass
        until(lambda: service.held("web1"))
        with (
            tempfile.TemporaryDirectory(prefix="ve", dir="/tmp") as name,
            FakeVm(Path(name), "--incoming", "on", agent=False) as destination,
        ):
            run(vm, "migrate", "check", "--to", str(destination.qmp))
        done(vm, {0}, "unplug")
        while next(views).document["vm"]["online_vcpus"] != 1:
            pass
        views.cancel()


def test_an_operation_that_is_under_way_ends_before_the_vm_is_reached_otherwise(vm: FakeVm) -> None:
    with Serving({"web1": vm}) as service, service.host() as host:
        service.holds("web1")
        rule = vm.steer.rule("guest:insert", "hold")
        messages = host.Apply(pb.ApplyRequest(vm="web1", order=pb.Order(operation=pb.Order.OPERATION_PLUG)))
        with Vcpuctl(vm, "plug") as refused:
            vm.steer.wait(rule)
            service.moves("web1", vm, "qmp2")
            until(lambda: not service.held("web1"))
            assert refused.ends().outcome == "vm-busy"
        vm.steer.release(rule)
        *_, last = messages
        assert last.result["outcome"] == "done"
        service.holds("web1")
        done(vm, {0, 1, 2}, "plug")


def test_a_vm_that_comes_later_or_again_is_held_then(vm: FakeVm) -> None:
    with Serving({}) as service:
        service.adds("web1", vm)
        service.holds("web1")
        vm.kill_agent()
        vm.start_agent()
        done(vm, {0, 1}, "plug")


def test_migrate_gets_the_vm_itself_and_the_service_has_it_again_after_that(vm: FakeVm) -> None:
    with (
        Serving({"web1": vm}) as service,
        tempfile.TemporaryDirectory(prefix="ve", dir="/tmp") as name,
        FakeVm(Path(name), "--incoming", "on", agent=False) as destination,
    ):
        service.holds("web1")
        checked = run(vm, "migrate", "check", "--to", str(destination.qmp))
        assert checked.status in (0, 3), checked.stdout
        assert checked.outcome in ("done", "refused")
        until(lambda: service.held("web1"))


def test_a_refusal_of_the_service_is_over_when_its_advice_was_followed() -> None:
    """The service's session with the agent goes on: what the guest is like is asked for anew."""
    with (
        tempfile.TemporaryDirectory(prefix="ve", dir="/tmp") as name,
        FakeVm(Path(name), "--threads", "2", "--maxcpus", "8", agent=False) as vm,
    ):
        control = Path(name) / "sys/devices/system/cpu/smt/control"
        control.parent.mkdir(exist_ok=True)
        control.write_text("off\n", encoding="ascii")
        vm.start_agent()
        with Serving({"web1": vm}) as service:
            service.holds("web1")
            refused = run(vm, "plug", "--slot", "1")
            assert (refused.status, refused.json["reason"]["code"]) == (3, "smt-off")
            assert run(vm, "plan", "plug", "--slot", "1").status == 3
            control.write_text("on\n", encoding="ascii")
            assert run(vm, "plan", "plug", "--slot", "1").status == 0
            done(vm, {0, 1}, "plug", "--slot", "1")
