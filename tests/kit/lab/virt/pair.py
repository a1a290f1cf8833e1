# SPDX-License-Identifier: Apache-2.0
"""Two hosts of libvirt between which domains migrate."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from kit.lab import host
from kit.lab.cache import Cache
from kit.lab.virt.libvirt_host import LibvirtHost, scratch_folder


@contextmanager
def two_hosts(
    suites: tuple[str, str] = ("sid", "sid"), *, cache: Cache | None = None, progress: host.Progress = host.quiet
) -> Iterator[tuple[LibvirtHost, LibvirtHost]]:
    """Yield hosts ``hosta`` and ``hostb`` with a directory in common and a network between them: see ``migrate``."""
    with (
        scratch_folder() as shared,
        LibvirtHost(suites[0], name="hosta", shared=shared, cache=cache, progress=progress) as one,
        LibvirtHost(suites[1], name="hostb", shared=shared, cache=cache, progress=progress) as other,
    ):
        addresses = one.ground.join(other.ground)
        one.knows(other, addresses[1])
        other.knows(one, addresses[0])
        yield one, other
