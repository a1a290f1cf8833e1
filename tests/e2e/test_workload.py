# SPDX-License-Identifier: Apache-2.0
"""What vcpuctl tells of the guest's programs, on real kernels: before, after, and when the CPUs are back.

Each test judges by the guest's console. What the kernels do is in docs/workloads.md; that they number CPUs in different
ways is looked up and never assumed.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from kit.e2e import programs
from kit.e2e.machine import ROOT, Machine
from kit.e2e.programs import CGROUPS, FIRST, SECOND, allowed, done, notes, numbers, pinned, refused, shell

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]

ALL = "0-15"
GUESTS = [
    "debian12-amd64",
    pytest.param("debian13-amd64", marks=pytest.mark.slow),
    pytest.param("sid-amd64", marks=pytest.mark.slow),
]
BOTH = (str(FIRST), str(SECOND))


@pytest.fixture(params=GUESTS)
def guest(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def four(machines: Callable[..., Machine], guest: str) -> Machine:
    """Four CPUs, in slots 0 to 3."""
    machine = machines(guest=guest)
    done(machine, "plug", "3")
    return machine


def forgets(machine: Machine) -> bool:
    """Whether the kernel is one that was seen to forget masks in cpusets."""
    return shell(machine, "uname -r").startswith("6.1.")


def test_an_awake_pinned_thread_is_told_before_and_as_broken_after_and_stays_so(four: Machine) -> None:
    cpus = numbers(four, SECOND)
    pid = pinned(four, "busy", cpus, "awake")
    plan = notes(four.vcpuctl("plan", "unplug", "--slot", str(SECOND)).json)["pinned-threads"]
    assert (plan["slots"], plan["count"], plan["who"][0]["pid"], plan["who"][0]["unit"]) == (
        [SECOND],
        1,
        pid,
        "busy.service",
    )
    refused(four, "pinned-threads", "unplug", "--slot", str(SECOND))
    found = notes(done(four, "unplug", "--slot", str(SECOND)).json)
    assert {"pinned-threads", "affinity-broken"} <= set(found)
    assert found["affinity-broken"]["who"][0]["pid"] == pid
    assert programs.no_longer_affine(four)
    assert allowed(four, pid) == ALL
    done(four, "plug", "--slot", str(SECOND))
    assert allowed(four, pid) == ALL


def test_a_sleeping_pinned_thread_is_told_as_asleep_and_whole_again_when_its_cpu_is_back(four: Machine) -> None:
    cpus = numbers(four, SECOND)
    pid = pinned(four, "idle", cpus, "asleep")
    refused(four, "pinned-threads", "offline", str(SECOND))
    found = notes(done(four, "unplug", "--slot", str(SECOND)).json)
    assert {"pinned-threads", "affinity-asleep"} <= set(found)
    assert allowed(four, pid) == programs.cpulist(cpus)
    done(four, "plug", "--slot", str(SECOND))
    assert numbers(four, SECOND) == cpus
    assert allowed(four, pid) == programs.cpulist(cpus)


@pytest.mark.slow
def test_of_a_mask_of_two_cpus_the_first_may_go_and_the_last_one_is_told(four: Machine) -> None:
    cpus = numbers(four, FIRST, SECOND)
    pid = pinned(four, "two", cpus, "awake")
    found = notes(done(four, "unplug", "--slot", str(SECOND)).json)
    assert not {"pinned-threads", "affinity-broken"} & set(found)
    assert allowed(four, pid) == programs.cpulist(cpus)
    refused(four, "pinned-threads", "unplug", "--slot", str(FIRST))
    assert "affinity-broken" in notes(done(four, "unplug", "--slot", str(FIRST)).json)
    assert allowed(four, pid) == ALL
    done(four, "plug", "--slot", *BOTH)
    assert allowed(four, pid) == ALL


def test_an_amount_spares_the_slot_that_somebody_is_pinned_to(four: Machine) -> None:
    pid = pinned(four, "busy", numbers(four, SECOND), "awake")
    mask = allowed(four, pid)
    assert done(four, "unplug").json["notes"] == []
    assert sorted(four.filled()) == [0, 1, SECOND]
    assert allowed(four, pid) == mask


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["root", "isolated"])
def test_a_partition_is_told_before_it_is_emptied_as_invalid_after_and_as_shared_when_it_is_back(
    four: Machine, kind: str
) -> None:
    cpus = numbers(four, FIRST, SECOND)
    pid = programs.partition(four, cpus, kind)
    refused(four, "partition-emptied", "unplug", "--slot", *BOTH)
    assert not notes(four.vcpuctl("plan", "unplug", "--slot", str(SECOND)).json)
    found = notes(done(four, "unplug", "--slot", *BOTH).json)
    assert {"partition-emptied", "partition-invalid"} <= set(found)
    assert programs.state_of(four).startswith(f"{kind} invalid" if not forgets(four) else ("root invalid", kind))
    back = notes(done(four, "plug", "--slot", *BOTH).json)
    assert numbers(four, FIRST, SECOND) == cpus
    assert programs.state_of(four) == kind
    root = shell(four, f"cat {CGROUPS}/cpuset.cpus.effective")
    shared = programs.cpulist(cpus[1:]) in root.split(",")
    assert ("partition-overlap" in back) == shared, (back, root)
    findings = {finding["code"] for finding in four.vcpuctl("doctor").json["findings"]}
    assert ("partition-overlap" in findings) == shared
    assert shared == (not forgets(four))
    shell(four, f"kill {pid}")


@pytest.mark.slow
def test_a_slice_with_allowed_cpus_is_told_before_it_falls_back_and_has_its_own_again(four: Machine) -> None:
    cpus = numbers(four, FIRST, SECOND)
    wanted = programs.cpulist(cpus)
    shell(four, f"systemctl set-property --runtime work.slice AllowedCPUs={wanted}")
    shell(four, "systemd-run --quiet --slice=work.slice --unit=worker sleep 1000000")
    effective = f"cat {CGROUPS}/work.slice/cpuset.cpus.effective"
    assert shell(four, effective) == wanted
    refused(four, "cpuset-falls-back", "unplug", "--slot", *BOTH)
    found = notes(done(four, "unplug", "--slot", *BOTH).json)
    assert found["cpuset-falls-back"]["who"][0]["cgroup"] == "/work.slice"
    assert shell(four, effective) == "0-1"
    assert "cpuset-falls-back" in {finding["code"] for finding in four.vcpuctl("doctor").json["findings"]}
    done(four, "plug", "--slot", *BOTH)
    assert shell(four, effective) == wanted


def test_a_unit_with_cpuaffinity_is_told_before_cannot_be_restarted_after_and_can_again(four: Machine) -> None:
    (cpu,) = numbers(four, SECOND)
    programs.put(four, "/etc/systemd/system/aff.service", f"[Service]\nExecStart=sleep 1000000\nCPUAffinity={cpu}\n")
    shell(four, "systemctl daemon-reload; systemctl start aff.service")
    refused(four, "unit-affinity", "unplug", "--slot", str(SECOND))
    found = notes(done(four, "unplug", "--slot", str(SECOND)).json)
    assert found["unit-affinity"]["who"][0]["unit"] == "aff.service"
    shell(four, "systemctl restart aff.service || true")
    shell(four, "until systemctl is-failed --quiet aff.service; do busybox usleep 100000; done")
    assert shell(four, "systemctl show -p ExecMainStatus --value aff.service") == "215"
    findings = {finding["code"]: finding for finding in four.vcpuctl("doctor").json["findings"]}
    assert findings["unit-affinity"]["text"].startswith("aff.service cannot be ")
    done(four, "plug", "--slot", str(SECOND))
    shell(four, "systemctl reset-failed aff.service; systemctl restart aff.service")
    assert shell(four, "systemctl is-active aff.service") == "active"
    assert "unit-affinity" not in {finding["code"] for finding in four.vcpuctl("doctor").json["findings"]}


@pytest.mark.slow
def test_cpus_that_come_and_are_isolated_are_told_before_as_possible_and_after_as_so(
    machines: Callable[..., Machine], guest: str
) -> None:
    arguments = "nohz_full=1-3 isolcpus=managed_irq,domain,1-3"
    machine = machines(guest=guest, kernel_args=arguments)
    assert "isolated-cpus" in notes(machine.vcpuctl("plan", "plug", "3").json)
    found = notes(done(machine, "plug", "3").json)
    assert shell(machine, "cat /sys/devices/system/cpu/isolated") == "1-3"
    came = set(numbers(machine, 1, 2, 3))
    assert f"{len(came & {1, 2, 3})} of the 3 new CPUs" in found["isolated-cpus"]["what"]
    # A new program does not get them.
    mask = shell(machine, "python3 -c 'import os; print(sorted(os.sched_getaffinity(0)))'")
    assert mask == "[0]"


@pytest.mark.slow
def test_a_network_card_with_eight_queue_pairs_is_told_and_the_hook_raises_them(
    machines: Callable[..., Machine], guest: str
) -> None:
    card = "virtio-net-pci,netdev=n0,mq=on,vectors=18"
    machine = machines(
        guest=guest, extra_args=("-netdev", "tap,id=n0,queues=8,script=no,downscript=no", "-device", card)
    )
    shell(machine, "modprobe virtio_net; until ls -d /sys/class/net/*/device/driver; do busybox usleep 100000; done")
    name = shell(machine, "ls -d /sys/class/net/*/device/driver").split("/")[4]
    queues = f"ls -d /sys/class/net/{name}/queues/tx-* | wc -l"
    assert shell(machine, queues) == "1"
    assert "net-queues" in notes(machine.vcpuctl("plan", "plug", "3").json)
    found = notes(done(machine, "plug", "3").json)
    assert found["net-queues"]["what"] == f"{name} uses 1 of 8 queue pairs, with 4 CPUs"
    assert shell(machine, queues) == "1"
    assert "net-queues" in {finding["code"] for finding in machine.vcpuctl("doctor").json["findings"]}
    programs.ethtool(machine)
    example(machine, "post-online", "raise-net-queues")
    hooks_on(machine)
    done(machine, "plug", "--slot", "5")
    shell(machine, f'until [ "$({queues})" = 5 ]; do busybox usleep 100000; done')
    assert "net-queues" not in {finding["code"] for finding in machine.vcpuctl("doctor").json["findings"]}


def example(machine: Machine, event: str, name: str) -> None:
    """Switch one of the shipped hooks on, as the page says."""
    folder = f"/etc/vcpud/hooks.d/{event}.d"
    hook = (ROOT / f"packaging/hooks/{event}.d/{name}").read_bytes()
    shell(machine, f"mkdir -p {folder}")
    machine.vm.put(hook, f"{folder}/{name}")
    shell(machine, f"chmod 755 {folder}/{name}")


def hooks_on(machine: Machine, more: str = "") -> None:
    machine.vm.put(f"hooks = true\nhook_timeout = 60\n{more}".encode(), "/etc/vcpud/vcpud.conf")
    shell(machine, "systemctl daemon-reload; systemctl restart vcpud")


def test_a_pin_that_appears_after_the_look_is_told_after_the_fact(four: Machine) -> None:
    (cpu,) = numbers(four, SECOND)
    programs.put(four, "/run/late.py", programs.script("late", [cpu], "awake"))
    folder = "/etc/vcpud/hooks.d/pre-offline.d"
    begin = "systemd-run --quiet --unit=late python3 /run/late.py"
    hook = f"#!/bin/sh\n{begin}\nuntil [ -e /run/late ]; do busybox usleep 50000; done\n"
    shell(four, f"mkdir -p {folder}")
    four.vm.put(hook.encode(), f"{folder}/late")
    shell(four, f"chmod 755 {folder}/late")
    hooks_on(four)
    found = notes(done(four, "unplug", "--slot", str(SECOND), "--workload", "refuse").json)
    assert "pinned-threads" not in found
    assert found["affinity-broken"]["who"][0]["unit"] == "late.service"
    assert programs.no_longer_affine(four)


@pytest.mark.slow
def test_the_hook_that_keeps_pinned_cpus_refuses_in_words_and_one_that_restarts_services_does(four: Machine) -> None:
    pinned(four, "busy", numbers(four, SECOND), "awake")
    example(four, "pre-offline", "keep-pinned")
    example(four, "post-online", "restart-services")
    example(four, "post-online", "tell-log")
    programs.put(four, "/etc/systemd/system/once.service", "[Service]\nExecStart=sleep 1000000\n")
    programs.put(four, "/etc/vcpud/restart-services", "once.service\n")
    shell(four, "systemctl daemon-reload; systemctl start once.service")
    before = shell(four, "systemctl show -p MainPID --value once.service")
    hooks_on(four)
    ended = four.vcpuctl("--timeout", "300", "unplug", "--slot", str(SECOND), timeout=400.0)
    assert (ended.status, ended.slots[SECOND]["reason"]["code"]) == (3, "hook-refused"), ended.stdout
    assert "are pinned to" in ended.slots[SECOND]["reason"]["text"]
    done(four, "unplug", "--slot", "1")
    done(four, "plug", "--slot", "1")
    now = "systemctl show -p MainPID --value once.service"
    shell(four, f'until [ "$({now})" != {before} ] && [ "$({now})" != 0 ]; do busybox usleep 100000; done')


def test_with_keep_affinity_and_its_drop_in_a_broken_mask_is_put_back(four: Machine) -> None:
    cpus = numbers(four, SECOND)
    pid = pinned(four, "busy", cpus, "awake")
    folder = "/etc/systemd/system/vcpud.service.d"
    shell(four, f"mkdir -p {folder}")
    four.vm.put((ROOT / "packaging/hooks/keep-affinity.conf").read_bytes(), f"{folder}/keep-affinity.conf")
    four.vm.put(b"keep_affinity = true\n", "/etc/vcpud/vcpud.conf")
    shell(four, "systemctl daemon-reload; systemctl restart vcpud")
    assert "affinity-broken" in notes(done(four, "unplug", "--slot", str(SECOND)).json)
    assert allowed(four, pid) == ALL
    found = notes(done(four, "plug", "--slot", str(SECOND)).json)
    assert "affinity-put-back" in found
    assert allowed(four, pid) == programs.cpulist(cpus)
