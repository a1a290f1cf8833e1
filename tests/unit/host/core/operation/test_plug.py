# SPDX-License-Identifier: Apache-2.0
"""What is known of a device_add, and of the CPU that it is to bring."""

from __future__ import annotations

from vcpu_host.core.operation.plug import Plug


def plugged(now: float = 1.0) -> Plug:
    """A plug that QEMU has answered with success."""
    plug = Plug()
    plug.asked()
    plug.answered()
    plug.done(now)
    return plug


def test_a_plug_is_ours_from_the_moment_that_it_is_asked_for() -> None:
    plug = Plug()
    assert (plug.unanswered, plug.ours) == (False, False)
    plug.asked()
    assert (plug.unanswered, plug.ours) == (True, True)
    plug.answered()
    assert (plug.unanswered, plug.ours) == (False, False), "QEMU refused it"
    assert plugged().ours


def test_a_look_that_was_asked_for_before_qemu_answered_may_not_show_the_cpu() -> None:
    plug = plugged()
    assert (plug.since_look, plug.done_at) == (True, 1.0)
    plug.look_asked()
    assert (plug.since_look, plug.done_at) == (False, 1.0)


def test_qemu_has_shown_the_cpu_only_by_a_look_after_the_plug_and_for_the_present_goal() -> None:
    plug = Plug()
    plug.shown(filled=True)
    seen = [plug.seen_by_qemu]
    plug.asked()
    plug.done(1.0)
    seen.append(plug.seen_by_qemu)
    plug.shown(filled=True)
    seen.append(plug.seen_by_qemu)
    plug.shown(filled=False)
    seen.append(plug.seen_by_qemu)
    plug.shown(filled=True)
    plug.turned_round()
    seen.append(plug.seen_by_qemu)
    assert seen == [True, False, True, False, False]
    assert plug.done_at == 1.0, "what was plugged stays so"


def test_an_acknowledgement_counts_once_and_only_for_a_cpu_that_is_there_or_that_we_plug() -> None:
    plug = Plug()
    assert not plug.acknowledged(0.5, filled=False)
    assert plug.acknowledged_at is None
    plug.asked()
    assert plug.acknowledged(1.0, filled=False), "firmware may be quicker than QEMU's answer"
    assert not plug.acknowledged(2.0, filled=False)
    assert plug.acknowledged_at == 1.0


def test_of_a_cpu_that_somebody_else_has_plugged_the_acknowledgement_counts_too() -> None:
    assert Plug().acknowledged(1.0, filled=True)


def test_what_was_acknowledged_was_of_the_plug_before_when_the_slot_is_plugged_anew() -> None:
    plug = plugged()
    assert plug.acknowledged(2.0, filled=False)
    plug.taken_out()
    assert plug.acknowledged_at is None
    assert plug.acknowledged(3.0, filled=False)
    plug.asked()
    assert plug.acknowledged_at is None
