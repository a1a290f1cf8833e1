# SPDX-License-Identifier: Apache-2.0
"""One operation on one VM, as a state machine: observations in, actions out, the time an argument.

    plan ──▶ Machine ── advance(now) ──▶ actions (events.Do...) ──▶ vm.executor carries them out
               ▲                                                       │
               └── feed(event, now) ◀── events: answers, and what the VM tells ◀┘

- ``machine`` says what to do now, and when to ask again. It holds the three rules that nothing may break.
- ``transitions`` takes in what QEMU's side shows, ``guest_transitions`` what the guest says.
- ``state`` is all that is known. It is made of ``looks`` (when to look), ``session`` (the link to the agent),
  ``online_requests`` (what the agent was asked to switch), ``under_way`` (which jobs wait for what) and
  ``thread_names`` (whose an identity is).
- ``slot_job`` is the part of it that concerns one slot, made of ``plug`` and ``removal`` (what QEMU was asked for, and
  what came of it) and ``thread_evidence`` (what the guest said of each thread).
- Each of these takes in what happens by a method named after it, and nobody else writes its attributes: a rule of
  ``make check``.
- ``verdicts``: what is proven of a job, and how it ends or goes back.
- ``stages`` puts the removals of earlier operations before the request. ``patience``: how long an agent is waited for.
- ``limits`` are times; ``reasons`` puts into words why a slot ended as it did; ``result`` is the end, slot by slot.
- ``record`` says what has to be on record before an action is carried out, and what of it is over afterwards.
"""
