# SPDX-License-Identifier: Apache-2.0
"""Fixtures that make hosts of libvirt. A client that has acted behind libvirt's back fails the test that uses them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from kit.e2e import domains
from kit.lab.virt.libvirt_host import LibvirtHost
from kit.lab.virt.pair import two_hosts


@pytest.fixture
def libvirt_hosts() -> Iterator[Callable[..., LibvirtHost]]:
    """Makes hosts: ``libvirt_hosts("bookworm", name="hostb")``. None may have been asked to act behind libvirt."""
    with ExitStack() as stack:
        made: list[LibvirtHost] = []

        def make(suite: str = "sid", **options: Any) -> LibvirtHost:
            host = LibvirtHost(suite, progress=lambda line: print(line, file=sys.stderr), **options)
            made.append(stack.enter_context(host))
            return host

        yield make
        for host in made:
            domains.check_host(host)


@pytest.fixture
def libvirt_pair() -> Iterator[tuple[LibvirtHost, LibvirtHost]]:
    """Two hosts between which domains move. None may have been asked to act behind libvirt."""
    with two_hosts(progress=lambda line: print(line, file=sys.stderr)) as pair:
        yield pair
        for host in pair:
            domains.check_host(host)
