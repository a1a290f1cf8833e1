# SPDX-License-Identifier: Apache-2.0
"""Who would be hurt, and what is not used, on a fake /proc, cgroupfs and set of units."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from itertools import permutations
from pathlib import Path
from unittest.mock import Mock

import pytest
from kit.fakes.programs import FakePrograms, channels_of, network, tasks_of, units_of
from kit.fakes.sysfs import FakeKernel
from vcpu_guest.core.workload import MOST, SOME, Workload
from vcpu_guest.cpus import workload
from vcpu_guest.cpus.workload import Budget, Looker
from vcpu_guest.kernel.sysfs import Sysfs

NEW, OLD = "6.12.118+deb13-cloud-amd64", "6.1.0-56-cloud-amd64"


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[FakeKernel]:
    """Four CPUs, all of them online."""
    kernel = FakeKernel(tmp_path / "sys", boot=(0, 1, 2, 3))
    yield kernel
    kernel.close()


@pytest.fixture
def programs(tmp_path: Path, kernel: FakeKernel) -> FakePrograms:
    return FakePrograms(tmp_path)


def looker(programs: FakePrograms, release: str = NEW, seconds: float = 3600.0) -> Looker:
    folder = programs.folder
    return Looker(
        Sysfs(folder / "sys"),
        release,
        tasks_of(folder),
        units_of(folder),
        partial(channels_of, folder),
        budget=lambda: Budget(seconds),
        kdump_rules=(str(folder / "kdump.rules"),),
    )


def look(programs: FakePrograms, *going: int, use: bool = False, release: str = NEW) -> Workload:
    return looker(programs, release).look(frozenset(going), use=use, forgotten=True)


def test_threads_are_told_by_the_online_cpus_that_they_have_if_all_of_these_go(programs: FakePrograms) -> None:
    programs.task(10, "3", comm=b"alone", cgroup="/system.slice/db.service")
    programs.task(11, "2-3", comm=b"two")
    programs.task(12, "3,12", comm=b"half")  # cpu12 is not there
    programs.task(13)
    found = look(programs, 3)
    assert {each.cpus for each in found.pinned} == {frozenset({3})}
    (pinned,) = found.pinned
    assert pinned.threads.count == 2
    first = next(each for each in pinned.threads.some if each.pid == 10)
    assert (first.comm, first.unit, first.cgroup) == ("alone", "db.service", "/system.slice/db.service")
    assert {each.cpus for each in look(programs, 2, 3).pinned} == {frozenset({3}), frozenset({2, 3})}
    assert look(programs, 1).pinned == ()
    assert found.unseen == ()


def test_threads_of_the_kernel_are_left_out(programs: FakePrograms) -> None:
    programs.task(20, "3", comm=b"ksoftirqd/3", kernel=True)
    assert look(programs, 3).pinned == ()


def test_a_thread_that_has_only_the_cpus_of_its_cpuset_is_not_called_pinned(programs: FakePrograms) -> None:
    programs.cgroup("/a.slice", cpus="2-3")
    programs.task(10, "2-3", cgroup="/a.slice")
    programs.task(11, "3", cgroup="/a.slice")
    found = look(programs, 2, 3)
    assert [each.threads.some[0].pid for each in found.pinned] == [11]
    assert [(each.cgroup, each.cpus, each.effective) for each in found.cpusets] == [("/a.slice", "2-3", "2-3")]
    assert look(programs, 3).cpusets == ()


@pytest.mark.parametrize("place", ["/machine.slice/vm", ""])
def test_threads_of_one_process_in_threaded_cgroups_are_each_told_by_their_own(
    programs: FakePrograms, place: str
) -> None:
    """As libvirt has a VM's threads. Without `place` the cgroups are children of the root, which shows no type."""
    programs.cgroup(f"{place}/emulator", cpus="3", threaded=True)
    programs.cgroup(f"{place}/vcpus", cpus="2-3", threaded=True)
    programs.task(100, "3", cgroup=place or "/")
    programs.task(100, "3", tid=101, cgroup=f"{place}/vcpus")
    programs.task(100, "3", tid=102, cgroup=f"{place}/emulator")
    programs.task(100, "2-3", tid=103, cgroup=f"{place}/vcpus")
    programs.task(200, "3", cgroup=f"{place}/vcpus")
    (pinned,) = look(programs, 2, 3).pinned
    assert (pinned.cpus, {who.tid for who in pinned.threads.some}) == (frozenset({3}), {100, 101, 200})
    one = looker(programs)
    for order in permutations((100, 101, 102, 103)):
        own = one.own_masks(programs.online)
        assert {tid for tid in order if own.chosen(100, tid, frozenset(one.tasks.affinity(tid)))} == {100, 101}


def test_what_the_kernel_makes_threads_forget_is_told_thread_by_thread_in_threaded_cgroups(
    programs: FakePrograms,
) -> None:
    programs.cgroup("/vm/emulator", cpus="1", threaded=True)
    programs.cgroup("/vm/vcpus", cpus="2-3", threaded=True)
    programs.task(100, "1", cgroup="/vm/emulator")
    programs.task(100, "3", tid=101, cgroup="/vm/vcpus")
    programs.task(100, "1", tid=102, cgroup="/vm/emulator")
    assert [who.tid for who in look(programs, release=OLD).forgotten.some] == [101]


@pytest.mark.parametrize(("threaded", "asked"), [(False, 1), (True, 1000)])
def test_a_process_is_asked_for_its_cgroup_once_and_for_that_of_each_thread_only_in_threaded_ones(
    programs: FakePrograms, monkeypatch: pytest.MonkeyPatch, *, threaded: bool, asked: int
) -> None:
    path = programs.cgroup("/a.slice", cpus="1-3", threaded=threaded)
    one, users, places = looker(programs), Mock(return_value=True), Mock(return_value="/a.slice")
    monkeypatch.setattr(one.tasks, "is_users", users)
    monkeypatch.setattr(one.tasks, "cgroup", places)
    own = one.own_masks(programs.online)
    assert own.chosen(7, 7, frozenset({3}))
    for name in ("cpuset.cpus.effective", "cgroup.type"):
        (path / name).unlink()  # read once for the cgroup
    for tid in range(7, 1007):
        assert own.chosen(7, tid, frozenset({3}))
        assert own.in_cpuset(7, tid)
    assert (users.call_count, places.call_count) == (1, asked)


def test_a_nested_cpuset_is_told_by_those_of_its_cpus_that_its_parent_has(programs: FakePrograms) -> None:
    programs.cgroup("/kube.slice", cpus="0,3")
    programs.cgroup("/kube.slice/pod", cpus="2-3")
    found = look(programs, 3).cpusets
    assert [(each.cgroup, each.cpus, each.effective) for each in found] == [("/kube.slice/pod", "2-3", "3")]
    assert look(programs, 2).cpusets == ()
    assert look(programs, use=True).cpusets == ()


def test_a_nested_cpuset_that_has_its_parents_cpus_already_is_told_on_request_alone(programs: FakePrograms) -> None:
    programs.cgroup("/kube.slice", cpus="0-1")
    programs.cgroup("/kube.slice/pod", cpus="2-3")
    assert look(programs, 2, 3).cpusets == ()
    assert [each.cgroup for each in look(programs, 0, 1, 2, 3).cpusets] == ["/kube.slice"]
    assert [(each.cgroup, each.effective) for each in look(programs, use=True).cpusets] == [("/kube.slice/pod", "0-1")]


def test_of_many_threads_alike_a_few_are_named_and_all_are_counted(programs: FakePrograms) -> None:
    for tid in range(100, 150):
        programs.task(100, "3", tid=tid)
    (pinned,) = look(programs, 3).pinned
    assert (pinned.threads.count, len(pinned.threads.some)) == (50, SOME)


def test_partitions_are_told_with_whether_there_are_processes_in_them(programs: FakePrograms) -> None:
    programs.cgroup("/rt", cpus="2-3", partition="isolated")
    programs.cgroup("/idle", cpus="1", partition="root", populated=False)
    found = {each.cgroup: each for each in look(programs, 1, 2, 3).cpusets}
    assert (found["/rt"].partition, found["/rt"].populated) == ("isolated", True)
    assert not found["/idle"].populated
    assert [each.cgroup for each in look(programs, 2).cpusets] == []


def test_units_are_told_whose_affinity_nothing_else_meets(programs: FakePrograms) -> None:
    programs.unit("mysql.service", "[Service]\nExecStart=/x\nCPUAffinity=3\n")
    programs.unit("web.service", "[Service]\nExecStart=/x\n")
    programs.unit("web.service.d/50-cpu.conf", "[Service]\nCPUAffinity=2 3\n")
    programs.unit("log@.service", "[Service]\nCPUAffinity=1\n")
    programs.unit("log@a.service.d/x.conf", "[Service]\nCPUAffinity=\nCPUAffinity=3\n")
    programs.cgroup("/system.slice/mysql.service")
    found = {each.name: each for each in look(programs, 3).units}
    assert set(found) == {"mysql.service", "log@a.service"}
    assert found["mysql.service"].active
    assert not found["log@a.service"].active
    assert {each.name for each in look(programs, 2, 3).units} == {"mysql.service", "web.service", "log@a.service"}


def test_what_waits_for_cpus_that_are_away_is_told_on_request(programs: FakePrograms) -> None:
    programs.unit("mysql.service", "[Service]\nCPUAffinity=7\n")
    programs.cgroup("/a.slice", cpus="6-7")
    found = look(programs, use=True)
    assert [each.name for each in found.units] == ["mysql.service"]
    assert [(each.cgroup, each.effective) for each in found.cpusets] == [("/a.slice", "0-3")]
    other = look(programs, 3)
    assert (other.units, other.cpusets) == ((), ())


def test_a_units_new_drop_in_is_seen_by_the_next_look(programs: FakePrograms) -> None:
    programs.unit("web.service", "[Service]\nExecStart=/x\n")
    one = looker(programs)
    assert one.look(frozenset({3}), use=False).units == ()
    programs.unit("web.service.d/cpu.conf", "[Service]\nCPUAffinity=3\n")
    assert [each.name for each in one.look(frozenset({3}), use=False).units] == ["web.service"]


def test_deadline_reservations_are_told(programs: FakePrograms) -> None:
    programs.task(30, comm=b"rt", policy=6)
    found = look(programs, 3)
    assert (found.deadline.count, found.deadline.some[0].comm) == (1, "rt")


def test_a_deadline_reservation_that_children_do_not_inherit_is_one_too(programs: FakePrograms) -> None:
    programs.task(30, comm=b"rt", policy=6 | os.SCHED_RESET_ON_FORK)
    programs.task(31, comm=b"other", policy=os.SCHED_RESET_ON_FORK)
    assert look(programs, 3).deadline.count == 1


def test_instances_of_a_template_are_found_by_their_cgroups(programs: FakePrograms) -> None:
    programs.unit("my-w@.service", "[Service]\nCPUAffinity=%i\n")
    programs.cgroup("/system.slice/system-my\\x2dw.slice/my-w@3.service")
    programs.cgroup("/system.slice/my-w@2.service", populated=False)
    programs.cgroup("/user.slice/my-w@1.service")
    found = {each.name: each.active for each in look(programs, 1, 2, 3).units}
    assert found == {"my-w@3.service": True, "my-w@2.service": False}


def test_only_a_kernel_that_forgets_masks_is_said_to_and_only_with_cpusets(programs: FakePrograms) -> None:
    programs.task(10, "1", cgroup="/system.slice/x.service")
    assert look(programs, release=OLD).forgotten.count == 0
    programs.cgroup("/system.slice/x.service")
    programs.task(11, cgroup="/system.slice/x.service")
    programs.task(12, "1")
    assert look(programs, release=OLD).forgotten.count == 1
    assert look(programs, release=NEW).forgotten.count == 0


def test_what_keeps_cpus_from_being_used_is_told(programs: FakePrograms, kernel: FakeKernel) -> None:
    kernel.set_list("isolated", "1-3")
    network(programs.folder, "eth0", 1, 8)
    network(programs.folder, "eth1", 4, 8)
    network(programs.folder, "eth2", 2, 2)
    programs.cgroup("/system.slice/x.service", quota="200000 100000")
    programs.cgroup("/rt", cpus="3", partition="isolated")
    programs._put(programs.cgroupfs / "cpuset.cpus.isolated", "3")
    found = look(programs, use=True)
    assert (found.isolated, found.partition_isolated) == ("1-3", "3")
    assert [(each.name, each.queue_pairs, each.most_queue_pairs) for each in found.network] == [
        ("eth0", 1, 8),
        ("eth1", 4, 8),
    ]
    assert [(each.unit, each.cpus) for each in found.quotas] == [("x.service", 2.0)]
    assert not found.kdump_reloads


def test_a_kernel_without_a_sum_of_isolated_partitions_has_them_added_up(programs: FakePrograms) -> None:
    programs.cgroup("/rt", cpus="2-3", partition="isolated")
    programs.cgroup("/other", cpus="1", partition="root")
    assert look(programs, use=True).partition_isolated == "2-3"


def test_a_loaded_crash_kernel_with_kdumps_rule_is_told(programs: FakePrograms) -> None:
    path = programs.folder / "sys/kernel/kexec_crash_loaded"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("1\n")
    (programs.folder / "kdump.rules").write_text("")
    assert look(programs, use=True).kdump_reloads


def test_without_cgroup_v2_it_is_said_that_cpusets_were_not_seen(programs: FakePrograms) -> None:
    (programs.cgroupfs / "cgroup.subtree_control").unlink()
    assert "cgroup v2" in look(programs, 3).unseen[0]


def test_a_look_ends_when_its_time_is_used_up_and_says_so(programs: FakePrograms) -> None:
    for tid in range(1000, 1600):
        programs.task(1000, "3", tid=tid)
    found = looker(programs, seconds=0.0).look(frozenset({3}), use=False)
    assert found.pinned == ()
    assert "threads: 0 were looked at" in found.unseen[0]


def test_distinct_masks_are_bounded_and_what_is_left_out_is_counted(
    programs: FakePrograms, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workload, "MOST", 2)
    for number, mask in enumerate(("1", "2", "3", "1-2")):
        programs.task(10 + number, mask)
    found = look(programs, 1, 2, 3)
    assert len(found.pinned) == 2
    assert "2 more are pinned" in found.unseen[0]
    assert MOST == 1024


def test_a_million_pins_make_no_large_answer(programs: FakePrograms, monkeypatch: pytest.MonkeyPatch) -> None:
    one = looker(programs)
    monkeypatch.setattr(one.tasks, "threads", lambda: ((7, tid) for tid in range(7, 1_000_007)))
    monkeypatch.setattr(one.tasks, "affinity", lambda tid: {3})
    monkeypatch.setattr(one.tasks, "policy", lambda tid: 0)
    programs.task(7, "3")
    found = one.look(frozenset({3}), use=False)
    assert found.pinned[0].threads.count == workload.MOST_THREADS
    assert len(found.pinned[0].threads.some) == SOME
    assert f"{workload.MOST_THREADS} were looked at" in found.unseen[0]


def test_names_with_escapes_reach_nobody_as_they_are(programs: FakePrograms) -> None:
    programs.task(10, "3", comm=b"\x1b[31m\n", cgroup="/a\udcff\x1b.service")
    (pinned,) = look(programs, 3).pinned
    (thread,) = pinned.threads.some
    assert thread.comm == "\\x1b[31m\\n"
    assert thread.cgroup.isprintable()
    assert thread.unit.isprintable()


def test_threads_and_cgroups_that_end_meanwhile_do_not_matter(programs: FakePrograms) -> None:
    programs.task(10, "3").end()
    programs.task(9, "3", tid=9).end()
    programs.task(9, "3", tid=8)
    (programs.proc / "11").mkdir()
    (programs.proc / "12/task/12").mkdir(parents=True)
    (pinned,) = look(programs, 3).pinned
    assert [each.tid for each in pinned.threads.some] == [8]
