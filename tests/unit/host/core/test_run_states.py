# SPDX-License-Identifier: Apache-2.0
"""Every run state that QEMU has is known, and nothing that is advised in one makes the VM worse."""

from __future__ import annotations

import re

import pytest
from kit.sim.plans import codes, planned
from kit.sim.views import host, vm
from vcpu_host.core.diagnosis import diagnose
from vcpu_host.core.run_states import AWAY, RUN_STATES, is_over, not_running, run_state

#: The enumeration RunState of qapi/run-state.json, as QEMU 5.2 to 11.1 have it; and what it had from 3.0 to 5.1.
QAPI = (
    *("debug", "inmigrate", "internal-error", "io-error", "paused", "postmigrate", "prelaunch", "finish-migrate"),
    *("restore-vm", "running", "save-vm", "shutdown", "suspended", "watchdog", "guest-panicked", "colo"),
)
OLD = ("preconfig",)

#: Commands that change a VM, in the order in which they may be advised in each state: all others would be refused
#: there, change nothing, or do harm. By qmp_cont (monitor/qmp-cmds.c): refused where a reset is needed (internal-error,
#: shutdown: runstate_needs_reset), in finish-migrate and colo; nothing in suspended; taken in all others, where it is
#: up to whoever sends it: it resumes a guest that has panicked, and what a failed loading left (seen on 10.0 and 11.1).
#: A reset of a VM that does not run leads to prelaunch (system/runstate.c, main_loop_should_exit), hence the cont after
#: it. In restore-vm, after a loadvm that failed of missing CPUs, QEMU takes them, then loads the snapshot, and is whole
#: after a cont (seen on 10.0: tests/e2e/test_snapshots.py). system_wakeup is refused but in suspended
#: (qmp_system_wakeup). dump-guest-memory needs no state.
MAY = {
    "debug": (),
    "inmigrate": (),
    "internal-error": ("system_reset", "cont"),
    "io-error": ("cont",),
    "paused": ("cont",),
    "postmigrate": ("cont",),
    "prelaunch": ("cont",),
    "finish-migrate": (),
    "restore-vm": ("loadvm", "cont"),
    "save-vm": (),
    "shutdown": ("system_reset", "cont"),
    "suspended": ("system_wakeup",),
    "watchdog": ("cont", "system_reset", "cont"),
    "guest-panicked": ("dump-guest-memory", "system_reset", "cont"),
    "colo": (),
    "preconfig": ("x-exit-preconfig",),
}
#: Where cont comes to mind and does not help.
CONT_IS_NO_HELP = {"suspended", "shutdown", "internal-error", "guest-panicked", "restore-vm"}
#: The guest that was there will not go on.
OVER = {"shutdown", "internal-error", "guest-panicked", "postmigrate"}

_COMMANDS = re.compile(
    r"(?<![\w=-])(cont|stop|quit|system_[a-z]+|dump-guest-memory|snapshot-load|loadvm|migrate-[a-z]+|x-exit-preconfig)"
    r"(?![\w-])"
)


def _commands(words: str) -> tuple[str, ...]:
    return tuple(_COMMANDS.findall(words))


@pytest.mark.parametrize("status", [*QAPI, *OLD])
def test_what_is_advised_in_a_run_state_helps_there_and_nothing_else_is(status: str) -> None:
    if status == "running":
        assert run_state(host(2)) is None
        assert status not in RUN_STATES
        return
    state = RUN_STATES[status]
    assert state.what
    assert state.do
    assert _commands(state.do) == MAY[status]
    assert not _commands(state.what)
    assert ("cont" in state.leave) is (status in CONT_IS_NO_HELP)
    assert set(_commands(state.leave)) <= {"cont"}
    assert state.over is is_over(status) is (status in OVER)
    if status == "postmigrate":  # two QEMUs that run one VM destroy its disk
        assert "if it is certain that the VM never ran there, cont" in state.do


def test_no_run_state_is_known_that_qemu_does_not_have() -> None:
    assert set(RUN_STATES) | {"running"} == {*QAPI, *OLD}
    assert set(MAY) == set(RUN_STATES)
    assert set(RUN_STATES) > AWAY


@pytest.mark.parametrize("status", [*RUN_STATES, "new-in-qemu-13"])
@pytest.mark.parametrize("operation", ["plug", "unplug", "scale", "online", "offline"])
def test_nothing_is_done_in_a_run_state_but_running_and_each_says_what_to_do(operation: str, status: str) -> None:
    view = vm(4, {0, 1})._replace(host=host(4, {0, 1}, status=status))
    words = ("1",) if operation in ("online", "offline") else ()
    decided = planned(view, operation, None if words else 3, *words)
    assert codes(decided) == [not_running(view.host).code]
    (refusal,) = decided.refusals
    assert refusal.reason == not_running(view.host)
    found = {finding.code: finding for finding in diagnose(view)}
    assert (found[refusal.reason.code].text, found[refusal.reason.code].fix) == (
        refusal.reason.text,
        refusal.reason.hint,
    )


def test_a_state_that_is_not_known_is_told_as_such_and_nothing_is_advised_that_changes_the_vm() -> None:
    reason = not_running(host(2, status="new-in-qemu-13"))
    assert (reason.code, is_over("new-in-qemu-13")) == ("vm-not-running", False)
    assert "new-in-qemu-13" in reason.text
    assert "does not know this state" in reason.text
    assert not _commands(reason.hint)


@pytest.mark.parametrize("status", ["paused", "finish-migrate"])
@pytest.mark.parametrize("migration", ["postcopy-paused", "postcopy-recover-setup", "postcopy-recover"])
def test_a_postcopy_that_broke_off_is_recovered_and_never_let_run(status: str, migration: str) -> None:
    """The destination is "paused" for query-status and takes a cont, with pages that are still on the source."""
    reason = not_running(host(2, status=status)._replace(migration=migration))
    assert _commands(reason.hint.partition(";")[0]) == ("migrate-recover",)
    assert "cont would run it without that memory" in reason.hint


def test_a_vm_that_is_paused_by_its_migration_is_left_to_it() -> None:
    reason = not_running(host(2, status="paused")._replace(migration="postcopy-active"))
    assert "migration is under way" in reason.text
    assert not _commands(reason.hint)
