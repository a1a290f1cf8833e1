# SPDX-License-Identifier: Apache-2.0
"""One writer, any number of readers (promise 8): readers are answered beside a writer, and never hold one up."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from kit.component.cli import SOON, Vcpuctl, done, run, stands, until
from kit.component.proxies import Called, list_cpus, proxied, set_online
from kit.component.watching import Watching
from kit.fakes.qemu import FakeVm
from vcpu_host import Operation, Request, Target
from vcpu_host.sharing import vm as module
from vcpu_host.sharing.calls import Call, Kind

READS = [("list",), ("doctor",), ("plan", "plug", "1"), ("export",)]


@pytest.fixture
def vm() -> Iterator[FakeVm]:
    with tempfile.TemporaryDirectory(prefix="ve", dir="/tmp") as name, FakeVm(Path(name)) as fake:
        yield fake


@pytest.mark.parametrize("monitor", ["qmp", "qmp2"])
def test_readers_are_answered_in_the_middle_of_an_operation_which_goes_on(vm: FakeVm, monitor: str) -> None:
    rule = vm.steer.rule("guest:insert", "hold")
    with Vcpuctl(vm, "plug", "2") as plug:
        vm.steer.wait(rule)
        for words in READS:
            ended = run(vm, *words, monitor=monitor)
            assert ended.status == 0, ended.stdout + ended.stderr
        assert run(vm, "list", monitor=monitor).slots[1]["state"] == "plugged"
        vm.steer.release(rule)
        assert plug.ends().outcome == "done"
    stands(vm, {0, 1, 2})


@pytest.mark.parametrize("monitor", ["qmp", "qmp2"])
def test_a_watch_hands_the_vm_over_to_each_writer_and_goes_on_after_it(vm: FakeVm, monitor: str) -> None:
    with Watching(vm, monitor=monitor) as watch, Watching(vm) as second:
        for slots, words in (({0, 1}, ("plug",)), ({0, 1, 2, 3}, ("plug", "2")), ({0}, ("unplug", "3"))):
            done(vm, slots, *words)
            for each in (watch, second):
                each.shows(online=len(slots))
        for each in (watch, second):
            each.process.send_signal(signal.SIGTERM)
            assert each.process.wait(SOON) == 0


def test_a_watch_shows_what_comes_about_in_the_middle_of_an_operation(vm: FakeVm) -> None:
    with Watching(vm) as watch:
        done(vm, {0, 1}, "plug")
        watch.shows(online=2)
        rule = vm.steer.rule("guest:eject", "hold")
        with Vcpuctl(vm, "unplug") as unplug:
            watch.shows_state(1, "unplugging")
            assert run(vm, "list").slots[1]["state"] == "unplugging"
            vm.steer.release(rule)
            assert unplug.ends().outcome == "done"
        watch.shows_state(1, "empty")


def test_a_watch_that_is_killed_is_in_nobodys_way(vm: FakeVm) -> None:
    with Watching(vm) as watch, Watching(vm) as second:
        watch.process.kill()
        watch.process.wait()
        done(vm, {0, 1}, "plug")
        second.shows(online=2)


def test_a_writer_that_is_killed_leaves_its_readers_the_vm(vm: FakeVm) -> None:
    with Watching(vm) as watch:
        rule = vm.steer.rule("guest:insert", "hold")
        with Vcpuctl(vm, "plug") as plug:
            vm.steer.wait(rule)
            plug.process.kill()
            plug.process.wait()
        vm.steer.release(rule)
        done(vm, {0, 1}, "scale", "2")
        watch.shows(online=2)


def test_a_watch_that_is_stopped_is_named_as_that_to_whoever_wants_the_vm_and_is_refused_in_time(vm: FakeVm) -> None:
    with Watching(vm) as watch:
        watch.process.send_signal(signal.SIGSTOP)
        for words in (("plug",), ("list",)):
            refused = run(vm, *words)
            assert (refused.status, refused.outcome) == (3, "service-silent"), refused.stdout
            error = refused.json["error"]
            assert error["text"].startswith("a vcpuctl that only looks has this VM and does not answer"), error
            assert f"{watch.process.pid} vcpuctl" in error["text"]
            assert "kill -CONT" in error["hint"]
            assert "waiting for another program that has this VM: " in refused.stderr
        watch.process.send_signal(signal.SIGCONT)
        done(vm, {0, 1}, "plug")


def test_a_writer_that_is_stopped_is_not_called_one_that_only_looks(vm: FakeVm) -> None:
    rule = vm.steer.rule("guest:insert", "hold")
    with Vcpuctl(vm, "plug") as plug:
        vm.steer.wait(rule)
        plug.process.send_signal(signal.SIGSTOP)
        refused = run(vm, "plug")
        assert (refused.status, refused.outcome) == (3, "vm-busy"), refused.stdout
        assert f"{plug.process.pid} vcpuctl" in refused.json["error"]["text"]
        plug.process.send_signal(signal.SIGCONT)
        vm.steer.release(rule)
        assert plug.ends().outcome == "done"


def test_clients_of_a_proxy_are_served_before_beside_and_after_a_writer(vm: FakeVm) -> None:
    boot = "acpi:\\_SB_.CPUS.C000"
    with proxied(vm) as path:
        assert list_cpus(path) == Called("OK", cpus=1)
        rule = vm.steer.rule("guest:insert", "hold")
        with Vcpuctl(vm, "plug") as plug:
            vm.steer.wait(rule)
            until(lambda: list_cpus(path) == Called("OK", cpus=1))
            refused = set_online(path, boot)
            assert refused.status == "FAILED_PRECONDITION"
            assert f"{plug.process.pid} vcpuctl" in refused.details
            vm.steer.release(rule)
            assert plug.ends().outcome == "done"
        until(lambda: list_cpus(path) == Called("OK", cpus=2))
        assert set_online(path, boot).status == "OK"


@pytest.mark.parametrize("left", [False, True], ids=["no socket", "a socket that was left"])
async def test_a_service_that_is_not_there_is_not_waited_for(
    vm: FakeVm, monkeypatch: pytest.MonkeyPatch, left: bool
) -> None:
    path = vm.folder / "serve.sock"
    if left:
        with socket.socket(socket.AF_UNIX) as gone:
            gone.bind(str(path))
    monkeypatch.setenv("VCPUCTL_SOCKET", str(path))
    monkeypatch.setattr(module, "_may_use_locks_of_service", lambda: False)
    asked = module.Vm(Target(str(vm.qmp)), "a test")
    async with asyncio.timeout(SOON):
        view = await asked.ask(Call(Kind.LIST), lambda message: None)
        assert view["vm"]["online_vcpus"] == 1
        request = Request(Operation.PLUG, 1)
        assert (await asked.ask(Call(Kind.RUN, request), lambda message: None))["outcome"] == "done"
    stands(vm, {0, 1})


_AS_ANOTHER_USER = Path(__file__).parents[1] / "kit" / "fakes" / "vcpuctl.py"


def test_a_second_signal_ends_a_command_whose_service_never_answers_and_the_vm_is_as_it_was(vm: FakeVm) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(vm.folder / "serve.sock"))
        listener.listen()
        listener.settimeout(SOON)
        settings = {"VCPUCTL_SOCKET": str(vm.folder / "serve.sock"), "LOCKS": str(vm.folder), "USER_ID": "65534"}
        command = subprocess.Popen(
            [sys.executable, "-P", str(_AS_ANOTHER_USER), "--qmp", str(vm.qmp), "-o", "json", "plug"],
            env={**os.environ, **settings},
            stdout=subprocess.PIPE,
        )
        service, _ = listener.accept()
        with service:
            service.settimeout(SOON)
            assert service.recv(1) == b"{"
            for number in (signal.SIGINT, signal.SIGTERM):
                command.send_signal(number)
            stdout, _ = command.communicate(timeout=SOON)
    assert command.returncode == 4, stdout
    assert json.loads(stdout)["error"]["code"] == "interrupted"
    stands(vm, {0})
