# SPDX-License-Identifier: Apache-2.0
"""One operation on one VM, as a state machine: observations in, actions out, the time an argument.

    plan ──▶ Machine ── advance(now) ──▶ actions (events.Do...) ──▶ vm.executor carries them out
               ▲                                                       │
               └── feed(event, now) ◀── events: answers, and what the VM tells ◀┘

- ``machine`` says what to do now, and when to ask again. It holds the three rules that nothing may break.
- ``transitions`` takes in what QEMU's side shows, ``guest_transitions`` what the guest says.
- ``state`` is all that is known; ``slot_job`` the part of it that concerns one slot. What is proven is asked there.
- ``stages`` puts the removals of earlier operations before the request. ``patience``: how long an agent is waited for.
- ``limits`` are times; ``reasons`` puts into words why a slot ended as it did; ``result`` is the end, slot by slot.
- ``record`` says what has to be on record before an action is carried out, and what of it is over afterwards.
"""
