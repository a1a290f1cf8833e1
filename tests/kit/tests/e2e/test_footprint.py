# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from kit.e2e.footprint import parse

SAID = """Threads:	5
fd /dev/kvm
fd /run/vm/console.log
fd anon_inode:kvm-vcpu:1
fd anon_inode:kvm-vcpu-stats:1
fd anon_inode:kvm-vcpu-stats:1
fd anon_inode:[eventfd]
fd socket:[123]
7f0000000000-7f0020000000 rw-p 00000000 00:00 0
Size:             524288 kB
Rss:              200000 kB
7f0020000000-7f0020002000 rw-p 00000000 00:00 0
Size:                  8 kB
Rss:                   4 kB
"""


def test_descriptors_are_counted_by_kind_and_memory_without_the_guests_own() -> None:
    assert parse(SAID) == {
        "threads": 5,
        "descriptors": 7,
        "descriptors: file": 2,
        "descriptors: kvm-vcpu": 1,
        "descriptors: kvm-vcpu-stats": 2,
        "descriptors: [eventfd]": 1,
        "descriptors: socket": 1,
        "memory without the guest's RAM, KiB": 4,
    }
