# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
from typing import Any

import pytest
from vcpu_guest.core.model import Reason
from vcpu_guest.core.reasons import Context, explain, name_of
from vcpu_guest.rpc import convert


def busy(**facts: Any) -> Reason:
    return explain(errno.EBUSY, Context(number=1, **{"online": frozenset({0, 1}), **facts}), online=False)


def test_busy_and_alone_is_the_last_cpu() -> None:
    assert busy(online=frozenset({1})).code == "last-cpu"


def test_busy_with_only_isolated_cpus_left_is_the_last_housekeeping_cpu() -> None:
    reason = busy(online=frozenset({1, 2, 3}), isolated=frozenset({2, 3}))
    assert reason.code == "last-housekeeping"
    assert "2-3" in reason.text


def test_busy_with_another_housekeeping_cpu_is_not_blamed_on_isolation() -> None:
    assert busy(online=frozenset({0, 1, 2}), isolated=frozenset({2})).code != "last-housekeeping"


def test_busy_with_deadline_tasks_names_them() -> None:
    reason = busy(deadline_tasks=("chrt (pid 7)",))
    assert reason.code == "deadline-bandwidth"
    assert "chrt (pid 7)" in reason.text


def test_busy_without_any_known_cause_says_what_to_do_if_it_stays_so() -> None:
    reason = busy()
    assert reason.code == "hotplug-disabled"
    assert "try again shortly" in reason.text
    assert "restart of the guest" in reason.text


def test_busy_under_nohz_full_is_the_time_keeper_unless_the_cpu_is_one_of_those_without_ticks() -> None:
    assert busy(nohz_full=frozenset({2})).code == "nohz-timekeeper"
    assert busy(nohz_full=frozenset({1})).code == "hotplug-disabled"


def test_busy_with_several_possible_causes_lists_them_all_likeliest_first() -> None:
    reason = busy(deadline_tasks=("a (pid 7)",), nohz_full=frozenset({2}))
    assert reason.code == "deadline-bandwidth"
    assert reason.text.index("SCHED_DEADLINE") < reason.text.index("nohz_full") < reason.text.index("for the moment")


#: As many CPUs, arguments and tasks as there may be, in lists that are as long as they can be.
SCATTERED = frozenset(range(1, 8192, 2))
CROWDED: dict[str, Any] = {
    "isolated": SCATTERED,
    "nohz_full": SCATTERED,
    "possible": SCATTERED,
    "deadline_tasks": tuple(f"{'name-of-a-thread'} (pid {4194300 + n})" for n in range(4)),
    "arguments": tuple(f"{name}={'x' * 100}{n},nosmt" for n in range(16) for name in ("mitigations", "nr_cpus")),
    "smt_control": "off",
}


@pytest.mark.parametrize("online", [True, False])
@pytest.mark.parametrize("others", [SCATTERED, frozenset({4})])
@pytest.mark.parametrize("code", sorted(errno.errorcode))
def test_no_reason_is_too_long_for_the_wire_so_what_to_do_is_never_cut_off(
    *, code: int, others: frozenset[int], online: bool
) -> None:
    reason = explain(code, Context(number=2, online=frozenset({2}) | others, **CROWDED), online=online)
    assert convert.reason(reason).text == reason.text


def test_a_long_list_in_a_reason_is_shortened_in_the_middle_and_what_to_do_stays() -> None:
    isolated = frozenset(range(1, 480, 2))
    reason = busy(online=frozenset({1, 2, *isolated}), isolated=isolated | {2})
    assert "(isolated are 1-3, 5, 7 and 236 more)" in reason.text
    assert reason.text.endswith("or boot without isolcpus= for one of them")


@pytest.mark.parametrize(
    ("code", "online", "reason"),
    [
        (errno.EPERM, True, "online-forbidden"),
        (errno.EBUSY, True, "hotplug-disabled"),
        (errno.EIO, True, "bring-up-failed"),
        (errno.ETIMEDOUT, True, "bring-up-failed"),
        (errno.ENOMEM, True, "no-memory"),
        (errno.EINVAL, True, "kernel-error"),
        (errno.EPERM, False, "offline-forbidden"),
        (errno.EOPNOTSUPP, False, "platform-forbids"),
        (errno.ENOSPC, False, "irq-vectors"),
        (errno.EDOM, False, "kernel-error"),
        (errno.EDOM, True, "kernel-error"),
    ],
)
def test_each_errno_has_its_reason_and_is_passed_on(code: int, online: bool, reason: str) -> None:
    found = explain(code, Context(number=1, online=frozenset({0, 1})), online=online)
    assert (found.code, found.errno) == (reason, code)
    assert found.text


def test_a_cpu_that_is_gone_is_not_blamed_on_the_errno() -> None:
    assert explain(errno.EINVAL, Context(number=1, present=False), online=True).code == "vanished"


def test_no_online_file_is_told_for_cpu0_and_for_others() -> None:
    def told(number: int) -> str:
        return explain(errno.ENOENT, Context(number=number, has_online=False), online=False).code

    assert (told(0), told(3)) == ("cpu0", "no-control")


def test_errnos_have_names() -> None:
    assert (name_of(errno.EBUSY), name_of(0), name_of(4095)) == ("EBUSY", "", "E4095")


@pytest.mark.parametrize("control", ["off", "forceoff"])
def test_a_thread_that_the_smt_mode_leaves_idle_is_ecanceled_the_first_time_and_eperm_after(control: str) -> None:
    for code in (errno.ECANCELED, errno.EPERM):
        assert explain(code, Context(3, smt_control=control), online=True).code == "smt-off"


def test_ecanceled_is_not_smt_where_the_kernel_does_not_say_so() -> None:
    assert explain(errno.ECANCELED, Context(3, smt_control="on"), online=True).code == "kernel-error"


# -- an errno is laid at somebody's door only where something shows that it is theirs ---------------------------------


@pytest.mark.parametrize("online", [True, False])
@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_a_file_that_may_not_be_opened_is_the_agents_own_lack_of_rights(code: int, online: bool) -> None:
    found = explain(code, Context(3, smt_control="off", opened=False), online=online)
    assert (found.code, found.errno) == ("agent-no-rights", code)
    assert name_of(code) in found.text
    assert "vcpud.service" in found.text


def test_a_lack_of_rights_names_what_it_comes_from() -> None:
    def text(code: int, **facts: Any) -> str:
        return explain(code, Context(3, opened=False, **facts), online=True).text

    assert "ReadWritePaths=/sys/devices/system/cpu" in text(errno.EROFS)
    assert "container" in text(errno.EROFS)
    assert "audit log" in text(errno.EACCES)
    assert "User=" in text(errno.EACCES, root=False)
    assert "audit log" not in text(errno.EACCES, root=False)


def test_the_kernels_cpu_code_says_neither_erofs_nor_eacces_whenever_they_come() -> None:
    for code in (errno.EROFS, errno.EACCES):
        assert explain(code, Context(3), online=False).code == "agent-no-rights"


@pytest.mark.parametrize("control", ["off", "forceoff", "2"])
def test_eperm_on_the_way_up_is_smt_where_the_kernel_says_so(control: str) -> None:
    assert explain(errno.EPERM, Context(3, smt_control=control), online=True).code == "smt-off"


@pytest.mark.parametrize("control", ["on", "notsupported", "notimplemented", ""])
def test_eperm_on_the_way_up_is_not_smt_where_the_kernel_does_not_say_so(control: str) -> None:
    found = explain(errno.EPERM, Context(3, smt_control=control), online=True)
    assert found.code == "online-forbidden"
    assert "smt/control" not in found.text


def test_what_is_forced_off_is_not_advised_to_be_switched_on() -> None:
    def text(control: str, *arguments: str) -> str:
        return explain(errno.EPERM, Context(3, smt_control=control, arguments=arguments), online=True).text

    assert "smt/control" not in text("forceoff")
    assert "boot without nosmt=force" in text("forceoff")
    assert "boot without l1tf=full,force" in text("forceoff", "nr_cpus=4", "l1tf=full,force")
    assert "smt/control" in text("off")
    assert "boot without mitigations=auto,nosmt" in text("off", "mitigations=auto,nosmt")


def test_einval_looks_at_the_possible_cpus_first_and_blames_an_argument_only_if_it_is_there() -> None:
    def told(*arguments: str, possible: set[int]) -> Reason:
        context = Context(300, possible=frozenset(possible), arguments=arguments)
        return explain(errno.EINVAL, context, online=True)

    outside = told(possible=set(range(4)))
    assert outside.code == "not-possible"
    assert "nr_cpus" not in outside.text
    assert "boot without nr_cpus=4" in told("acpi=off", "nr_cpus=4", possible=set(range(4))).text
    assert told("nr_cpus=4", possible=set(range(400))).code == "kernel-error"
