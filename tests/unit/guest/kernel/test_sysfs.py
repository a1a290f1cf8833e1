# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
from pathlib import Path

import pytest
from kit.fakes.sysfs import FakeKernel
from vcpu_guest.kernel.sysfs import NotOpenedError, Sysfs, write_attribute


def test_an_absent_file_is_none_and_an_empty_list_is_no_cpu(sysfs: Sysfs, kernel: FakeKernel) -> None:
    for slot in range(1, kernel.possible):
        kernel.online.add(kernel.add(slot))
    kernel.remove(15)
    kernel.add(15)
    assert sysfs.read("devices/system/cpu/no-such-file") is None
    assert sysfs.mask("no-such-list") == frozenset()
    assert sysfs.mask("nohz_full") == frozenset()
    assert sysfs.mask("isolated") == frozenset()
    assert sysfs.mask("online") == frozenset(range(15))


def test_directories_are_those_of_cpus_alone(sysfs: Sysfs, kernel: FakeKernel) -> None:
    kernel.add(7)
    assert sysfs.directories() == {0, 1}


def test_a_cpu_that_came_back_is_another_incarnation(sysfs: Sysfs, kernel: FakeKernel) -> None:
    number = kernel.add(3)
    before = sysfs.incarnation(number)
    assert sysfs.incarnation(number) == before
    kernel.remove(number)
    assert sysfs.incarnation(number) is None
    kernel.add(3, number)
    assert sysfs.incarnation(number) not in {None, before}


def test_numbers_that_the_kernel_does_not_know_are_none(sysfs: Sysfs, kernel: FakeKernel) -> None:
    assert sysfs.read_cpu_number(0, "topology/core_id") == 0
    kernel.set_list("cpu0/topology/core_id", "-1")
    assert sysfs.read_cpu_number(0, "topology/core_id") is None
    assert sysfs.node(0) == 0
    assert sysfs.node(9) is None


def test_the_node_of_a_cpu_that_is_online_is_in_the_nodes_own_lists(tmp_path: Path) -> None:
    sysfs = Sysfs(tmp_path)
    assert sysfs.node_running(0) is None, "a kernel without nodes"
    for node, cpus in ((0, "0-1,6"), (1, ""), (10, "4-5")):
        (tmp_path / f"devices/system/node/node{node}").mkdir(parents=True)
        (tmp_path / f"devices/system/node/node{node}/cpulist").write_text(f"{cpus}\n")
    (tmp_path / "devices/system/node/has_cpu").write_text("0,10\n")
    assert [sysfs.node_running(number) for number in (0, 6, 4, 2)] == [0, 0, 10, None]


def test_a_write_neither_creates_nor_truncates(tmp_path: Path) -> None:
    sysfs = Sysfs(tmp_path)
    (tmp_path / "devices/system/cpu/cpu0").mkdir(parents=True)
    with pytest.raises(FileNotFoundError):
        sysfs.write_online(0, online=False)
    assert not sysfs.has_online(0)
    attribute = tmp_path / "attribute"
    attribute.write_text("0 and more")
    write_attribute(str(attribute), b"1")
    assert attribute.read_text() == "1 and more"


def test_the_kernels_errno_comes_through() -> None:
    # /dev/full refuses every write with ENOSPC, as a kernel file may.
    with pytest.raises(OSError, match="No space") as caught:
        write_attribute("/dev/full", b"1")
    assert caught.value.errno == errno.ENOSPC
    assert not isinstance(caught.value, NotOpenedError)


def test_an_errno_of_opening_is_told_from_one_of_writing(tmp_path: Path) -> None:
    with pytest.raises(NotOpenedError) as caught:
        write_attribute(str(tmp_path), b"1")
    assert caught.value.errno == errno.EISDIR
