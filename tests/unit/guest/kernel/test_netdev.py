# SPDX-License-Identifier: Apache-2.0
"""Network devices and their queues."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from kit.fakes.programs import network
from vcpu_guest.kernel import netdev
from vcpu_guest.kernel.sysfs import Sysfs


def test_of_virtio_devices_the_queues_are_asked_for_and_of_others_not(tmp_path: Path) -> None:
    network(tmp_path, "eth0", 1, 8)
    (tmp_path / "sys/class/net/lo").symlink_to(tmp_path / "sys")
    asked: list[str] = []

    def ask(name: str) -> tuple[int, int]:
        asked.append(name)
        return 1, 8

    found = list(netdev.network_devices(Sysfs(tmp_path / "sys"), ask))
    assert [(each.name, each.queue_pairs, each.most_queue_pairs) for each in found] == [("eth0", 1, 8)]
    assert asked == ["eth0"]


def test_a_device_that_has_gone_is_passed_over(tmp_path: Path) -> None:
    network(tmp_path, "eth0", 1, 8)

    def gone(name: str) -> tuple[int, int]:
        raise OSError(errno.ENODEV, "No such device")

    assert list(netdev.network_devices(Sysfs(tmp_path / "sys"), gone)) == []


def test_without_any_network_there_is_none(tmp_path: Path) -> None:
    assert list(netdev.network_devices(Sysfs(tmp_path))) == []


def test_the_kernel_refuses_a_device_without_channels_by_an_errno() -> None:
    with pytest.raises(OSError, match=r".") as raised:
        netdev.channels("lo")
    assert raised.value.errno in (errno.EOPNOTSUPP, errno.ENODEV, errno.EPERM)
