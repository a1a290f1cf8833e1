# SPDX-License-Identifier: Apache-2.0
"""How long to wait and how often to look, as data. All times are in seconds."""

from __future__ import annotations

from typing import NamedTuple

from .. import codes

#: What a slow guest needs for one vCPU, with room to spare, in seconds: its kernel brings CPUs up one after another
#: (0.2 to 0.8 s each under TCG; 0.1 to 2.2 s under a KVM in a host that TCG emulated; no other KVM was measured).
PATIENCE_PER_VCPU = 3.0


class Limits(NamedTuple):
    """The limits of one operation.

    ``timeout`` bounds the whole of it, with ``timeout_per_vcpu`` more for each vCPU that the plan touches; when it is
    over, what is not settled is reported as unknown.
    ``arrival_grace`` is how long after the guest's firmware acknowledged a CPU its kernel may take to show it; then the
    agent is asked for its list, and only that is a verdict. ``notice_grace`` is the same for a CPU that was plugged
    before, of which the firmware says nothing; one whose plug is still on record has ``arrival_grace`` from the
    beginning.
    ``look_fresh`` is how long, from the question on, the guest's word that a CPU is offline allows a ``device_del``
    (``proof.SeenDown``): what brings CPUs online may get the processor of guest or host meanwhile, and then the answer
    comes late. An emulated guest answers in some 20 ms.
    ``relapses`` is how often something in the guest may bring a CPU online again before its slot is refused.
    ``poll_first`` and ``poll_most`` bound the interval between looks at QEMU while a removal is awaited;
    ``poll_idle`` is the interval of the looks that make lost events harmless.
    ``let_go_grace`` is how long an offline that does not come back may hold up the ejection of CPUs that are offline.
    ``eject_again`` is how long a guest may leave a removal unanswered before it is asked once more: its firmware may
    have missed the first request.
    ``absent_grace`` is how long an agent may take to open its port, before the operation begins, in a guest that is not
    known to be booting still.
    ``retries`` is how often a refusal that passes by itself (``retry_codes``) is tried again, ``retry_after`` apart.
    """

    timeout: float = 60.0
    timeout_per_vcpu: float = 0.0
    arrival_grace: float = 15.0
    notice_grace: float = 5.0
    look_fresh: float = 0.05
    relapses: int = 3
    poll_first: float = 0.02
    poll_most: float = 0.25
    poll_idle: float = 1.0
    let_go_grace: float = 3.0
    eject_again: float = 15.0
    absent_grace: float = 20.0
    retries: int = 5
    retry_after: float = 0.5
    retry_codes: frozenset[str] = frozenset({codes.HOTPLUG_DISABLED})

    @classmethod
    def within(cls, timeout: float | None) -> Limits:
        """Return limits that bound the whole operation by ``timeout`` seconds, whatever there is to do.

        With None the time depends on how many vCPUs the plan touches. Raise ValueError for what is no time.
        """
        given: object = timeout
        if given is not None and (isinstance(given, bool) or not isinstance(given, int | float) or not given > 0):
            raise ValueError(f"a time limit is a number of seconds above 0, and {given!r:.40} is none")
        return cls(timeout_per_vcpu=PATIENCE_PER_VCPU) if timeout is None else cls(timeout=timeout)
