# SPDX-License-Identifier: Apache-2.0
"""Plans by policy and by node. The order of the slots as such is in ``test_placement``."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence

import pytest
from kit.sim.effort import growth
from kit.sim.plans import codes, steps
from kit.sim.views import INFO, guest, host, slot
from vcpu_host import documents
from vcpu_host.core.intent import Intent, IntentKind
from vcpu_host.core.model import Props, Slot
from vcpu_host.core.planning.placement import Placement
from vcpu_host.core.planning.plan import Operation, Plan, Request
from vcpu_host.core.planning.planner import plan
from vcpu_host.core.reason import Origin, Reason
from vcpu_host.core.view import VmView, join, with_pending

SPREAD, PACK = Placement.SPREAD, Placement.PACK
PLUG, UNPLUG, SCALE = Operation.PLUG, Operation.UNPLUG, Operation.SCALE


def _vm(
    nodes: Sequence[int], online: Collection[int] = (0,), offline: Collection[int] = (), *, threads: int = 1
) -> VmView:
    """A slot for each entry, on that node."""
    there = {*online, *offline}
    slots = tuple(_slot(i, node, threads, filled=i in there) for i, node in enumerate(nodes))
    view = host(len(nodes), threads=threads, slots=slots)
    return join(view, guest(view, online, offline), agent=INFO)


def _slot(index: int, node: int, threads: int, *, filled: bool) -> Slot:
    props: Props = {"node-id": node, "core-id": index * threads}
    return slot(index, threads=threads, props=props, filled=filled, boot=index == 0)


def _plan(
    view: VmView, operation: Operation, count: int, policy: Placement = Placement.LOWEST, *, node: int | None = None
) -> Plan:
    return plan(view, Request(operation, count, placement=policy, node=node))


def _slots(decided: Plan) -> list[int]:
    return [index for _, index in steps(decided)]


TWO = [0, 0, 0, 0, 1, 1, 1, 1]


def test_plug_without_a_policy_takes_the_lowest_slots_whatever_their_node() -> None:
    assert _slots(_plan(_vm(TWO), PLUG, 4)) == [1, 2, 3, 4]


def test_plug_by_policy_takes_the_slots_that_it_promises_and_says_why() -> None:
    decided = _plan(_vm(TWO), PLUG, 4, SPREAD)
    assert _slots(decided) == [4, 1, 5, 2]
    assert decided.steps[0].why == "spread: of the nodes with room, node 1 has the fewest vCPUs"
    assert _slots(_plan(_vm(TWO), PLUG, 4, PACK)) == [1, 2, 3, 4]


def test_unplug_by_policy_leaves_the_shape_that_it_promises() -> None:
    full = _vm(TWO, range(8))
    assert _slots(_plan(full, UNPLUG, 4, SPREAD)) == [7, 3, 6, 2]
    assert _slots(_plan(full, UNPLUG, 4, PACK)) == [7, 6, 5, 4]
    assert _slots(_plan(_vm(TWO, [0, 1, 4, 5, 6]), UNPLUG, 3, PACK)) == [6, 5, 4]
    assert _slots(_plan(_vm(TWO, [0, 1, 4, 5, 6]), UNPLUG, 1)) == [6]


def test_scale_grows_and_shrinks_by_the_policy() -> None:
    assert _slots(_plan(_vm(TWO), SCALE, 4, SPREAD)) == [4, 1, 5]
    assert _slots(_plan(_vm(TWO, [0, 1, 2, 4]), SCALE, 2, SPREAD)) == [2, 1]
    assert _slots(_plan(_vm(TWO, [0, 1, 2, 4]), SCALE, 2, PACK)) == [4, 2]


def test_scale_counts_a_slot_that_is_being_removed_no_more() -> None:
    view = with_pending(_vm(TWO, [0, 4, 5]), [Intent(IntentKind.UNPLUG, 5, "vcpu-5", 0.0)])
    decided = _plan(view, SCALE, 3, SPREAD)
    assert [each.slot.index for each in decided.recover] == [5]
    assert _slots(decided) == [1]


def test_plug_gives_no_weight_to_what_is_about_to_go() -> None:
    going = [Intent(IntentKind.UNPLUG, index, f"vcpu-{index}", 0.0) for index in (4, 5)]
    assert _slots(_plan(with_pending(_vm(TWO, [0, 4, 5]), going), PLUG, 1, SPREAD)) == [6]


@pytest.mark.parametrize(("policy", "expected"), [(Placement.LOWEST, [6, 5]), (SPREAD, [6, 5]), (PACK, [6, 5])])
def test_leftovers_are_finished_before_any_policy_chooses(policy: Placement, expected: list[int]) -> None:
    view = _vm(TWO, [0], [5, 6])
    assert steps(_plan(view, PLUG, 2, policy)) == [("online", 5), ("online", 6)]
    assert _slots(_plan(view, UNPLUG, 2, policy)) == expected


def test_what_is_plugged_already_counts_for_the_balance() -> None:
    assert steps(_plan(_vm(TWO, [0], [4, 5]), PLUG, 3, SPREAD)) == [("online", 4), ("online", 5), ("plug", 1)]


def test_slots_of_several_vcpus_are_dealt_whole_and_refused_in_parts() -> None:
    view = _vm([0, 0, 1, 1], threads=2)
    assert _slots(_plan(view, PLUG, 4, SPREAD)) == [2, 1]
    assert codes(_plan(view, PLUG, 3, SPREAD)) == ["granularity"]


# --- a node -----------------------------------------------------------------------------------------------------------


def test_a_node_confines_plug_and_unplug_to_its_slots() -> None:
    assert _slots(_plan(_vm(TWO), PLUG, 2, node=1)) == [4, 5]
    assert _slots(_plan(_vm(TWO, range(8)), UNPLUG, 2, node=0)) == [3, 2]


def test_a_node_and_a_policy_together_choose_within_the_node() -> None:
    slots = tuple(
        slot(i, props={"node-id": i // 4, "socket-id": i // 2, "core-id": i % 2}, filled=i == 0, boot=i == 0)
        for i in range(8)
    )
    view = host(8, slots=slots)
    decided = plan(join(view, guest(view, {0}), agent=INFO), Request(PLUG, 2, placement=SPREAD, node=1))
    assert _slots(decided) == [4, 6]
    assert decided.steps[1].why == "spread: of the sockets with room, socket 3 has the fewest vCPUs"


def test_leftovers_of_another_node_are_left_alone() -> None:
    view = _vm(TWO, [0], [2, 5])
    assert steps(_plan(view, PLUG, 2, node=1)) == [("online", 5), ("plug", 4)]
    assert _slots(_plan(view, UNPLUG, 1, node=0)) == [2]


def test_a_full_node_is_refused_with_what_is_left_there_and_where_there_is_room() -> None:
    decided = _plan(_vm([0, 0, 1, 1, 1, 2], [0, 2, 3]), PLUG, 2, node=1)
    assert codes(decided) == ["not-enough"]
    reason = decided.refusals[0].reason
    assert reason.text == "cannot plug 2 vCPUs on node 1: only 1 is left"
    assert reason.hint == "node 0 has room for 1; node 2 has room for 1"
    assert "maxcpus" in _plan(_vm([0, 1], [0, 1]), PLUG, 1, node=1).refusals[0].reason.hint


def test_more_than_a_node_has_cannot_be_unplugged_from_it() -> None:
    decided = _plan(_vm(TWO, [0, 1, 4]), UNPLUG, 2, node=1)
    assert codes(decided) == ["not-enough"]
    assert decided.refusals[0].reason.text == "cannot unplug 2 vCPUs on node 1: only 1 is left"


@pytest.mark.parametrize("operation", [PLUG, UNPLUG])
def test_a_node_that_is_not_there_is_refused_with_those_that_are(operation: Operation) -> None:
    decided = _plan(_vm(TWO, range(3)), operation, 1, node=7)
    assert codes(decided) == ["no-such-node"]
    assert "0, 1" in decided.refusals[0].reason.text


@pytest.mark.parametrize("operation", [PLUG, UNPLUG])
def test_a_node_of_a_machine_without_nodes_is_refused_with_what_to_start_it_with(operation: Operation) -> None:
    view = host(4)
    decided = plan(join(view, guest(view, {0}), agent=INFO), Request(operation, 1, node=0))
    assert codes(decided) == ["no-nodes"]
    assert "-numa" in decided.refusals[0].reason.hint


def test_a_machine_that_cannot_plug_says_so_before_it_speaks_of_nodes() -> None:
    view = _vm(TWO).host._replace(no_hotplug=Reason("no-hotplug", Origin.QEMU, "cannot"))
    assert codes(plan(join(view, None), Request(PLUG, 1, node=9))) == ["no-hotplug"]


# --- the request ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (lambda: Request(PLUG, None, ("1",), placement=SPREAD), "not both"),
        (lambda: Request(UNPLUG, None, ("1",), node=0), "not both"),
        (lambda: Request(SCALE, 2, in_guest=True, placement=PACK), "none is plugged"),
        (lambda: Request(SCALE, 2, node=0), "whole VM"),
        (lambda: Request(Operation.ONLINE, None, node=0), "none is plugged"),
    ],
)
def test_what_does_not_go_together_cannot_be_asked_for(request_: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        request_()  # type: ignore[operator]


def test_a_request_tells_its_policy_and_node_only_when_they_are_not_the_default() -> None:
    assert documents.of_request(Request(PLUG, 2)) == {"count": 2, "slots": []}
    told = json.loads(json.dumps(documents.of_request(Request(PLUG, 2, placement=SPREAD, node=0))))
    assert told == {"count": 2, "slots": [], "policy": "spread", "node": 0}


@pytest.mark.parametrize("policy", [SPREAD, PACK])
@pytest.mark.parametrize("share", [0.98, 0.25])
def test_a_plan_by_policy_for_eight_times_the_slots_takes_about_eight_times_as_long(
    policy: Placement, share: float
) -> None:
    def prepare(total: int) -> Callable[[], object]:
        slots = tuple(
            slot(
                i,
                props={"node-id": i // 512, "socket-id": i // 128, "core-id": i // 2 % 64, "thread-id": i % 2},
                filled=i % 3 == 0,
                boot=i == 0,
            )
            for i in range(total)
        )
        view = host(total, slots=slots)
        shown = join(view, guest(view, range(0, total, 3)), agent=INFO)
        return lambda: _plan(shown, SCALE, int(total * share), policy)

    assert growth(prepare, 512, 4096) < 24, "what grows with the square would be 64"
