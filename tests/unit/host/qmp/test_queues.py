# SPDX-License-Identifier: Apache-2.0
"""Devices whose queues follow -smp are found by their types, whatever the flavour."""

from __future__ import annotations

import pytest
from vcpu_host.errors import QemuError
from vcpu_host.qmp import queues


def _listing(*kinds: str) -> dict[str, str]:
    return {f"d{n}": kind for n, kind in enumerate(kinds)}


def test_disks_and_controllers_are_found_and_other_devices_are_not() -> None:
    listing = _listing("virtio-blk-pci", "virtio-net-pci", "virtio-scsi-pci-transitional", "qemu64-x86_64-cpu")
    assert queues.devices("/machine/peripheral", listing) == [
        ("/machine/peripheral/d0", "virtio-blk-device", "num-queues"),
        ("/machine/peripheral/d2", "virtio-scsi-device", "num_queues"),
    ]


def test_user_space_disks_go_by_a_class_of_their_own() -> None:
    (found,) = queues.devices("/p", _listing("vhost-user-blk-pci-non-transitional"))
    assert found == ("/p/d0", "vhost-user-blk", "num-queues")


def test_the_numbers_are_by_the_name_that_global_has() -> None:
    read = [
        ("virtio-blk-device", "num-queues", 4),
        ("virtio-scsi-device", "num_queues", 2),
        ("virtio-blk-device", "num-queues", 1),
    ]
    assert queues.by_global(read) == {"virtio-blk-device.num-queues": (1, 4), "virtio-scsi-device.num_queues": (2,)}


@pytest.mark.parametrize("value", [None, "4", True])
def test_what_is_no_number_is_a_bad_reply(value: object) -> None:
    with pytest.raises(QemuError) as caught:
        queues.by_global([("virtio-blk-device", "num-queues", value)])
    assert caught.value.reason.code == "bad-reply"
