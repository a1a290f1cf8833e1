# SPDX-License-Identifier: Apache-2.0
"""What stands in the way of every operation: nothing is planned then, and the reason is told."""

from __future__ import annotations

import pytest
from kit.sim.plans import codes, planned, steps
from kit.sim.views import guest, host, vm
from vcpu_host.core.reason import Origin, Reason
from vcpu_host.core.view import join

_MAX = Reason("no-hotplug", Origin.QEMU, "this machine cannot")


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ("paused", "vm-not-running"),
        ("prelaunch", "vm-not-running"),
        ("shutdown", "vm-not-running"),
        ("io-error", "vm-not-running"),
        ("inmigrate", "vm-awaited"),
        ("finish-migrate", "vm-moved"),
        ("postmigrate", "vm-moved"),
    ],
)
@pytest.mark.parametrize("operation", ["plug", "unplug", "scale"])
def test_nothing_is_tried_on_a_vm_that_does_not_run(operation: str, status: str, code: str) -> None:
    view = vm(4, {0, 1})._replace(host=host(4, {0, 1}, status=status))
    assert codes(planned(view, operation, 3 if operation == "scale" else 1)) == [code]


@pytest.mark.parametrize("operation", ["plug", "unplug", "scale"])
@pytest.mark.parametrize("status", ["setup", "active", "pre-switchover", "cancelling", "postcopy-paused", "new-in-12"])
def test_nothing_is_tried_while_a_migration_is_under_way(operation: str, status: str) -> None:
    view = vm(4, {0, 1})._replace(host=host(4, {0, 1})._replace(migration=status))
    assert codes(planned(view, operation, 3 if operation == "scale" else 1)) == ["migrating"]


@pytest.mark.parametrize("status", ["", "none", "completed", "failed", "cancelled"])
def test_a_migration_that_is_over_is_in_nobodys_way(status: str) -> None:
    view = vm(4, {0, 1})._replace(host=host(4, {0, 1})._replace(migration=status))
    assert steps(planned(view, "plug", 1)) == [("plug", 2)]


def test_a_machine_without_hotplug_is_refused_but_for_the_guests_side() -> None:
    view = host(2, {0, 1}, no_hotplug=_MAX)
    shown = join(view, guest(view, {0, 1}))
    for operation in ("plug", "unplug", "scale"):
        assert codes(planned(shown, operation, 1)) == ["no-hotplug"]
    assert steps(planned(shown, "offline", None, "1")) == [("offline", 1)]


@pytest.mark.parametrize("operation", ["plug", "unplug", "scale"])
def test_an_unknown_platform_is_refused_whatever_is_asked(operation: str) -> None:
    view = host(4, {0, 1})._replace(arch="sparc64")
    shown = join(view, guest(host(4, {0, 1}), {0, 1}))
    assert planned(shown, operation, 3 if operation == "scale" else 1).refusals


@pytest.mark.parametrize("operation", ["online", "offline"])
def test_an_unknown_platforms_cpus_are_not_switched_by_guess(operation: str) -> None:
    view = host(4, {0, 1})._replace(arch="sparc64")
    shown = join(view, guest(host(4, {0, 1}), {0, 1}))
    assert codes(planned(shown, operation, None, "1")) == ["unknown-platform"]
