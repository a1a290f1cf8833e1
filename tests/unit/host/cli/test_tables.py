# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from kit.sim.views import CORES, INFO, host, vm
from vcpu_host.cli import tables
from vcpu_host.cli.layout import Block, Table, compose
from vcpu_host.core import platforms
from vcpu_host.core.finding import Level
from vcpu_host.core.intent import Intent, IntentKind
from vcpu_host.core.model import Owner, Recorded
from vcpu_host.core.operation.result import OperationResult, SlotResult
from vcpu_host.core.planning.plan import Operation, Request
from vcpu_host.core.planning.selectors import select
from vcpu_host.core.reason import Origin, Outcome, Reason
from vcpu_host.core.view import VmView, join, with_pending
from vcpu_host.core.workload.model import Note
from vcpu_host.documents import of_result, of_view

_WHY = Reason("guest-ignored", Origin.GUEST, "the kernel shows no such CPU", "look at its log", "ENODEV")


def _shown(blocks: Sequence[Block]) -> list[str]:
    return ["".join(text for text, _ in line) for line in compose(blocks, None)]


def _result(*slots: SlotResult, reason: Reason | None = None) -> list[str]:
    whole = OperationResult(Request(Operation.PLUG, 1), Outcome.PARTIAL, slots, 0.5, reason)
    return _shown(tables.result_blocks(of_result(whole)))


def test_a_reason_stands_once_with_all_the_slots_that_it_is_about() -> None:
    slots = [SlotResult(n, f"vcpu-{n}", Outcome.FAILED, _WHY if n != 4 else None) for n in (1, 2, 3, 4, 6)]
    lines = _result(*slots)
    assert lines[6] == f"slots 1-3, 6: {_WHY}"
    assert str(_WHY) == "guest: the kernel shows no such CPU (ENODEV); look at its log"
    assert len(lines) == 8


def test_a_reason_of_the_whole_is_told_unless_a_slot_tells_it() -> None:
    assert str(_WHY) in _result(reason=_WHY)
    assert "\n".join(_result(SlotResult(1, "", Outcome.REFUSED, _WHY), reason=_WHY)).count(str(_WHY)) == 1


@pytest.fixture(autouse=True)
def _cores_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platforms, "_TABLE", (*platforms._TABLE, CORES))


def _with_nodes(qemu: int | None, *guest: int | None) -> VmView:
    view = vm(1, {0}, threads=len(guest)) if len(guest) > 1 else vm(1, {0})
    assert view.guest is not None
    props = view.host.slots[0].props if qemu is None else {**view.host.slots[0].props, "node-id": qemu}
    slots = (replace(view.host.slots[0], props=props),)
    cpus = tuple(replace(cpu, node=node) for cpu, node in zip(view.guest.cpus, guest, strict=True))
    return join(view.host._replace(slots=slots), view.guest._replace(cpus=cpus), agent=view.agent)


@pytest.mark.parametrize(
    ("qemu", "guest", "words"),
    [
        (1, (1,), "1"),
        (1, (0,), "1 (guest: 0)"),
        (1, (None,), "1"),
        (None, (0,), "0"),
        (None, (None,), "-"),
        (1, (0, 2), "1 (guest: 0,2)"),
        (1, (1, 2), "1 (guest: 2)"),
    ],
)
def test_the_table_has_qemus_node_and_the_guests_where_that_is_another(
    qemu: int | None, guest: tuple[int | None, ...], words: str
) -> None:
    view = _with_nodes(qemu, *guest)
    assert tables.node_text(of_view(view)["slots"][0]) == words
    slots = of_view(view)["slots"]
    threads: list[dict[str, object]] = slots[0]["threads"]
    assert [thread["guest_node"] for thread in threads] == list(guest)
    assert slots[0]["node"] == (qemu if qemu is not None else guest[0])


def test_the_props_of_the_table_name_the_slot() -> None:
    slots = host(4).slots
    for slot in slots:
        assert select(slots, [tables.props_text(slot.props)]) == (slot,)


def _slots_of(view: VmView, *, wide: bool = False) -> list[str]:
    """The first column of the map on a terminal."""
    (table,) = [
        block for block in tables.view_blocks(of_view(view), wide=wide, collapse=True) if isinstance(block, Table)
    ]
    return [str(row[0]) for row in table.rows]


def test_three_or_more_empty_slots_in_a_row_are_one_row() -> None:
    assert _slots_of(vm(9, {0, 3})) == ["0", "1", "2", "3", "4-8"]
    assert _slots_of(vm(6, {0, 4})) == ["0", "1-3", "4", "5"]
    assert _slots_of(vm(6, {0}), wide=True) == list("012345")
    (table,) = [block for block in tables.view_blocks(of_view(vm(9, {0})), collapse=False) if isinstance(block, Table)]
    assert len(table.rows) == 9


def test_a_row_of_several_slots_selects_them() -> None:
    view = vm(9, {0, 3})
    assert [slot.index for slot in select(view.host.slots, ["4-8"])] == [4, 5, 6, 7, 8]


def test_empty_slots_of_which_there_is_something_to_tell_keep_their_rows() -> None:
    view = with_pending(vm(8, {0}), [Intent(IntentKind.PLUG, 4, "vcpu-4", 0.0)])
    assert _slots_of(view) == ["0", "1-3", "4", "5-7"]
    slots = tuple(replace(slot, props={**slot.props, "node-id": slot.index // 4}) for slot in vm(8, {0}).host.slots)
    assert _slots_of(join(vm(8, {0}).host._replace(slots=slots), None)) == ["0", "1-3", "4-7"]


def test_the_wide_map_has_every_column() -> None:
    (table,) = [block for block in tables.view_blocks(of_view(vm(2, {0, 1})), wide=True) if isinstance(block, Table)]
    names = [column.name for column in table.columns]
    assert names[-5:] == ["VCPUS", "TYPE", "REMOVABLE", "FIRMWARE ID", "QOM PATH"]
    assert all(len(row) == len(names) for row in table.rows)
    assert table.rows[0][names.index("REMOVABLE")] != "yes"
    assert table.rows[1][names.index("REMOVABLE")] == "yes"


def test_the_map_says_that_the_guest_hears_of_no_cpu() -> None:
    view = vm(3, {0, 1})
    agent = INFO._replace(environment=INFO.environment._replace(unhandled_gpes=(2,)))
    document = of_view(join(view.host, view.guest, agent=agent))
    told = [line for line in _shown(tables.view_blocks(document)) if line.startswith("guest: GPE 02 of the guest is")]
    assert len(told) == 1
    assert "system_reset" in told[0]
    document["guest_trouble"] = None
    healthy = _shown(tables.view_blocks(document))
    del document["guest_trouble"]  # as a service of an older version has it
    assert _shown(tables.view_blocks(document)) == healthy
    assert told[0] not in healthy


def test_the_map_names_the_owner_and_where_its_record_is_not_right() -> None:
    view = vm(3, {0, 1})
    behind = replace(view.host.slots[2], recorded=Recorded.BEHIND)
    for alone, words in ((False, "owner: libvirt 12.8.0"), (True, "owner: libvirt 12.8.0, by its record alone")):
        owned = view.host._replace(
            owner=Owner("libvirt 12.8.0", definition=True, record_alone=alone), slots=view.host.slots
        )
        lines = _shown(tables.view_blocks(of_view(join(owned, view.guest, agent=view.agent))))
        assert words in lines
        assert not any("differ" in line for line in lines)
        differs = owned._replace(slots=(*view.host.slots[:2], behind))
        lines = _shown(tables.view_blocks(of_view(join(differs, view.guest, agent=view.agent))))
        assert "owner: its record and QEMU differ in slots 2: see vcpuctl doctor" in lines
    assert not any(line.startswith("owner") for line in _shown(tables.view_blocks(of_view(view))))


def test_what_is_known_of_the_guests_programs_stands_below_with_what_to_do() -> None:
    notes = (
        Note(Level.WARNING, "pinned-threads", "postgres[812] is pinned", "pin it elsewhere"),
        Note(Level.NOTE, "x", "y"),
    )
    result = OperationResult(Request(Operation.UNPLUG, 1), Outcome.DONE, (), 1.0, notes=(notes[1], notes[0]))
    told = _shown(tables.result_blocks(of_result(result)))
    assert [line.split() for line in told[-3:]] == [
        ["warning", "postgres[812]", "is", "pinned"],
        ["fix:", "pin", "it", "elsewhere"],
        ["note", "y"],
    ]


def test_a_note_that_is_the_reason_of_a_refusal_is_told_once() -> None:
    reason = Reason("pinned-threads", Origin.GUEST, "postgres[812] is pinned")
    note = Note(Level.WARNING, "pinned-threads", "postgres[812] is pinned", "pin it elsewhere")
    refused = SlotResult(3, "", Outcome.REFUSED, reason)
    result = OperationResult(Request(Operation.UNPLUG, 1), Outcome.REFUSED, (refused,), 1.0, reason, notes=(note,))
    assert sum("postgres[812]" in line for line in _shown(tables.result_blocks(of_result(result)))) == 1
