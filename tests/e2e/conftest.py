# SPDX-License-Identifier: Apache-2.0
"""A VM for each test, restored in about a second, with the built packages installed and the agent up.

When a test ends, whatever it did, the record of all QMP commands is held against the console's kernel log: no
``device_del`` may have come before the kernel said that the slot's CPU is offline (promise 2).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kit.e2e import domains, guestfirst
from kit.e2e.domains import DomainMachine
from kit.e2e.libvirt_fixtures import libvirt_hosts, libvirt_pair  # noqa: F401 - fixtures
from kit.e2e.machine import SPEC, Machine, Vcpuctl
from kit.lab import Cache, Lab, Lives, Vm
from kit.lab.virt import client, guests
from kit.lab.virt.libvirt_host import LibvirtHost

# they assert as tests do, and are none by their names
pytest.register_assert_rewrite("kit.e2e.trial", "kit.e2e.domain_trial", "kit.e2e.domain_faults")


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    with Lab(progress=lambda line: print(line, file=sys.stderr)) as whole:
        yield whole


@pytest.fixture
def machines(lab: Lab, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Machine]]:
    """Makes VMs: ``machines(smp=..., kernel_args=...)`` changes fields of the standard spec.

    With ``cold`` it is booted anew, with ``kvm`` it runs under KVM in an emulated host.
    """
    with ExitStack() as stack:
        made: list[tuple[Vm, guestfirst.Start]] = []

        def make(*, cold: bool = False, kvm: bool = False, **changes: Any) -> Machine:
            spec = replace(SPEC, **changes)
            host = stack.enter_context(lab.kvm(replace(spec, cpu=spec.cpu or "host"))) if kvm else None
            vm = host.guest if host else stack.enter_context(lab.boot(spec) if cold else lab.vm(spec))
            made.append((vm, guestfirst.look(vm)))
            vcpuctl = Vcpuctl(vm, host)
            stack.callback(vcpuctl.end)
            return Machine(vm, vcpuctl)

        yield make
        failed = getattr(request.node, "failed_in_call", False)
        for number, (vm, start) in enumerate(made):
            if failed:
                vm.collect(tmp_path / f"vm{number}")
                print(f"kept: {tmp_path / f'vm{number}'}", file=sys.stderr)
            guestfirst.check(vm, start)


@pytest.fixture
def lives_of(lab: Lab, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Lives]]:
    """Makes VMs that can be restored again and again, with changes of the standard spec; the test judges the record."""
    with ExitStack() as stack:
        made: list[Lives] = []

        def make(**changes: Any) -> Lives:
            made.append(stack.enter_context(lab.lives(replace(SPEC, **changes))))
            return made[-1]

        yield make
        if getattr(request.node, "failed_in_call", False):
            for number, lives in enumerate(made):
                lives.vm.collect(tmp_path / f"vm{number}")
                print(f"kept: {tmp_path / f'vm{number}'}", file=sys.stderr)


@pytest.fixture(scope="session")
def libvirt_module() -> Iterator[Mapping[str, str]]:
    """The environment with which this interpreter imports libvirt."""
    with client.find(Cache(), lambda line: print(line, file=sys.stderr)) as environment:
        yield environment


@pytest.fixture
def domain_machines(
    libvirt_hosts: Callable[..., LibvirtHost],  # noqa: F811
    libvirt_module: Mapping[str, str],
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> Iterator[Callable[..., DomainMachine]]:
    """Makes domains with vcpud: ``domain_machines("bookworm", current=2)`` changes fields of the standard spec.

    Each has a host of its own, if no ``host`` is given.
    """
    with ExitStack() as stack:
        made: list[DomainMachine] = []

        def make(suite: str = "sid", *, host: LibvirtHost | None = None, **changes: Any) -> DomainMachine:
            on, spec = host or libvirt_hosts(suite), replace(domains.SPEC, **changes)
            restored = guests.restored(on, spec, SPEC.debs, progress=lambda line: print(line, file=sys.stderr))
            domain = stack.enter_context(restored)
            made.append(DomainMachine(domain, libvirt_module, domains.look(domain)))
            return made[-1]

        yield make
        failed = getattr(request.node, "failed_in_call", False)
        for number, machine in enumerate(made):
            if failed:
                machine.domain.collect(tmp_path / f"domain{number}")
                print(f"kept: {tmp_path / f'domain{number}'}", file=sys.stderr)
            domains.check(machine.domain, machine.start)


@pytest.fixture
def machine(machines: Callable[..., Machine]) -> Machine:
    """The standard VM."""
    return machines()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    report = yield
    if report.when == "call":
        item.failed_in_call = report.failed  # type: ignore[attr-defined]
    return report


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long ones first; make has the workers take one test after another from this order."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


def pytest_sessionstart(session: pytest.Session) -> None:
    """The reports are this run's; the workers of a run only add to them."""
    if not hasattr(session.config, "workerinput"):
        from kit.e2e import domain_table, footprint, matrix

        for table in (matrix, footprint, domain_table):
            table.clear()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """When all workers have ended, and there is somebody to read it."""
    from kit.e2e import domain_table, footprint, matrix

    footprint.write()
    for line in [*matrix.write().splitlines(), *domain_table.write().splitlines()]:
        terminalreporter.write_line(line)
