# SPDX-License-Identifier: Apache-2.0
"""How many queues devices have that get one for each vCPU of -smp, unless they are told otherwise.

Since 5.2 that is the default of virtio disks and SCSI controllers on PCI (hw/virtio/virtio-pci.c,
virtio_pci_optimal_num_queues: -smp's first number). The number is part of what the guest sees (a queue has an MSI-X
vector), so a destination that starts with fewer CPUs, and gets the others by -device, must be told it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from . import replies

#: What the name of a device's type begins with; the class whose property it is, by which -global goes; the property.
_KINDS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "virtio-blk-": ("virtio-blk-device", "num-queues"),
        "virtio-scsi-": ("virtio-scsi-device", "num_queues"),
        "vhost-user-blk-": ("vhost-user-blk", "num-queues"),
        "vhost-user-scsi-": ("vhost-user-scsi", "num_queues"),
        "vhost-scsi-": ("vhost-scsi", "num_queues"),
    }
)


def devices(parent: str, children: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """Return, of the children of ``parent``: the path of each such device, the class, and its property."""
    return [
        (f"{parent}/{name}", *_KINDS[start])
        for name, kind in children.items()
        for start in _KINDS
        if kind.startswith(start)
    ]


def by_global(read: Iterable[tuple[str, str, object]]) -> Mapping[str, tuple[int, ...]]:
    """Return the numbers by the name that -global has for each, in ascending order: class.property to one a device."""
    numbers: dict[str, list[int]] = {}
    for kind, name, value in read:
        numbers.setdefault(f"{kind}.{name}", []).append(replies.member({name: value}, name, int, "qom-get"))
    return MappingProxyType({name: tuple(sorted(values)) for name, values in sorted(numbers.items())})
