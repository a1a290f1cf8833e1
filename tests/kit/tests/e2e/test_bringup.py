# SPDX-License-Identifier: Apache-2.0
"""How long a CPU was online is read right from the kernel's trace and its console."""

from __future__ import annotations

import pytest
from kit.e2e.bringup import Bringups, Start, read
from kit.e2e.guestfirst import Violation

#: As Linux 6.1 writes it, with the filters in force.
TRACE = """\
              sh-903     [002] .....   257.577143: cpuhp_enter: cpu: 0001 target: 236 step:  91 (bringup_cpu)
         cpuhp/1-867     [001] .N...   257.657466: cpuhp_exit:  cpu: 0001  state: 235 step: 235 ret: 0
              sh-903     [002] .....   257.659306: cpuhp_exit:  cpu: 0001  state: 236 step:  91 ret: 0
              sh-903     [002] .....   258.000000: cpuhp_enter: cpu: 0002 target: 236 step:  91 (bringup_cpu)
              sh-904     [000] .....   258.100000: cpuhp_enter: cpu: 0001 target: 236 step:  91 (bringup_cpu)
              sh-904     [000] .....   258.130000: cpuhp_exit:  cpu: 0001  state: 236 step:  91 ret: 0
              sh-903     [002] .....   258.150000: cpuhp_exit:  cpu: 0002  state: 236 step:  91 ret: 0
"""


def test_a_start_lasts_from_the_step_that_begins_it_to_that_step_s_end() -> None:
    starts = read(TRACE)
    assert [start.cpu for start in starts] == [1, 1, 2]
    assert [start.took for start in starts] == pytest.approx([0.082163, 0.03, 0.15])


def test_a_start_that_the_trace_does_not_show_whole_is_none() -> None:
    assert read("\n".join(TRACE.splitlines()[1:4])) == []


def test_a_cpu_is_online_from_the_end_of_the_start_that_came_before_its_removal() -> None:
    booting = "[    1.0] smpboot: Booting Node 0 Processor {} APIC 0x3"
    kernel = [(10.0, booting.format(1)), (10.2, booting.format(2)), (10.5, booting.format(1))]
    traced = Bringups()
    traced.starts = [Start(1, 0.04), Start(2, 0.5), Start(1, 0.06)]
    assert traced.online_for(Violation(10.1, "vcpu-3", 3, 10.0), kernel) == pytest.approx(0.06)
    assert traced.online_for(Violation(10.5, "vcpu-3", 4, 10.2), kernel) == pytest.approx(-0.2)
    assert traced.online_for(Violation(10.6, "vcpu-3", 3, 10.5), kernel) == pytest.approx(0.04)
