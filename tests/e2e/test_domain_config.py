# SPDX-License-Identifier: Apache-2.0
"""``--config``: the domain's definition has the same vCPUs, and those of the next start can be unplugged again."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from kit.e2e.domains import DomainMachine, all_three, start_again

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]


def done(machine: DomainMachine, *words: str) -> None:
    """One command is done."""
    ended = machine.vcpuctl(*words)
    assert (ended.status, ended.outcome) == (0, "done"), ended.stdout + ended.stderr


def removable(machine: DomainMachine) -> list[int]:
    """The vCPUs of the definition that may be unplugged after the next start."""
    listed = machine.domain.host.xml(machine.domain.name, inactive=True).findall("vcpus/vcpu")
    return [int(each.attrib["id"]) for each in listed if each.attrib["enabled"] == each.attrib["hotpluggable"] == "yes"]


def test_the_definition_follows_exactly_what_was_done(domain_machines: Callable[..., DomainMachine]) -> None:
    machine = domain_machines()
    domain, host = machine.domain, machine.domain.host
    done(machine, "plug", "--slot", "3")  # which is for this run of the domain alone
    for words, running, defined in (
        (("plug", "--slot", "5"), [0, 3, 5], [0, 5]),
        (("scale", "5"), [0, 1, 2, 3, 5], [0, 1, 2, 3, 5]),  # the goal is for all of them
        (("unplug", "--slot", "2"), [0, 1, 3, 5], [0, 1, 3, 5]),
        (("plug", "--slot", "5"), [0, 1, 3, 5], [0, 1, 3, 5]),
    ):
        done(machine, *words, "--config")
        assert machine.sides() == all_three(*running)
        assert domain.record(inactive=True) == defined
        assert removable(machine) == defined[1:]
    host.destroy("web1")
    host.start("web1", paused=True)
    assert host.slots("web1") == host.record("web1") == [0, 1, 3, 5]


def test_a_domain_without_a_definition_has_nothing_to_keep_it_in(
    domain_machines: Callable[..., DomainMachine],
) -> None:
    machine = domain_machines()
    machine.domain.host.ask("undefine", "web1")
    ended = machine.vcpuctl("plug", "--slot", "5", "--config")
    assert (ended.status, ended.json["reason"]["code"]) == (3, "no-definition"), ended.stdout
    assert machine.sides() == all_three(0)
    done(machine, "plug", "--slot", "5")


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("suite", ["sid", "bookworm"])
def test_after_the_next_start_the_same_vcpus_are_there_and_can_be_unplugged(
    domain_machines: Callable[..., DomainMachine], suite: str
) -> None:
    machine = domain_machines(suite)
    done(machine, "plug", "--slot", "5", "--config")
    done(machine, "scale", "4", "--config")
    assert machine.sides() == all_three(0, 1, 2, 5)
    start_again(machine)
    assert machine.sides() == all_three(0, 1, 2, 5)
    done(machine, "scale", "2", "--config")
    left = machine.domain.online()
    assert len(left) == 2
    assert machine.domain.slots() == left == machine.domain.record(inactive=True)
    start_again(machine)
    assert machine.sides() == all_three(*left)
    done(machine, "unplug", "--slot", str(left[1]), "--config")
    assert machine.domain.online() == machine.domain.slots() == machine.domain.record(inactive=True) == [0]
