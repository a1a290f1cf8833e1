# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from kit.lab.lives import plugged


def test_what_was_plugged_is_told_to_the_next_qemu_and_the_boot_cpus_are_not() -> None:
    reply = [
        {"type": "qemu64-x86_64-cpu", "props": {"socket-id": 1, "core-id": 0, "thread-id": 1}},
        {
            "type": "qemu64-x86_64-cpu",
            "props": {"core-id": 3, "thread-id": 0},
            "qom-path": "/machine/peripheral/vcpu-6",
        },
        {"type": "qemu64-x86_64-cpu", "props": {"core-id": 1}, "qom-path": "/machine/peripheral/chaos-2"},
        {"type": "qemu64-x86_64-cpu", "props": {"core-id": 0}, "qom-path": "/machine/unattached/device[0]"},
    ]
    assert plugged(reply) == [
        "qemu64-x86_64-cpu,id=chaos-2,core-id=1",
        "qemu64-x86_64-cpu,id=vcpu-6,core-id=3,thread-id=0",
    ]
