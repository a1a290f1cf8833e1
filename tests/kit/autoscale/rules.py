# SPDX-License-Identifier: Apache-2.0
"""Rules that say how many vCPUs a guest should have: ours, and models of others' made from what they document."""

from __future__ import annotations

import math
from collections import deque
from typing import Protocol

from vcpu_host.autoscale.decision import Decision
from vcpu_host.autoscale.outside import Outside
from vcpu_host.autoscale.policy import Policy
from vcpu_host.autoscale.settings import Settings
from vcpu_host.core.reason import Outcome

from .guest import SimGuest

#: How often the agent tells the load, in seconds: while nothing waits, and else (``service/autoscaler.py``).
CALM, BUSY = 1.0, 0.25


class Rule(Protocol):
    """A rule. ``look`` is called at each step; it may call ``guest.scale``."""

    name: str

    def look(self, guest: SimGuest) -> None:
        """Look at the guest, if it is time to, and resize it."""


class Ours:
    """vcpuctl's policy, fed as the service feeds it."""

    name = "vcpuctl"

    def __init__(self, settings: Settings) -> None:
        self.policy = Policy(settings)
        self.decisions: list[Decision] = []
        self._next = 0.0
        self._resizes = False

    def look(self, guest: SimGuest) -> None:
        """Take a sample when the agent would send one, and do what the policy decides."""
        if self._resizes and not guest.resizes:
            self._resizes = False
            self.policy.ended(Outcome.DONE, None, guest.now)
        if guest.now < self._next:
            return
        self._next = guest.now + (BUSY if guest.waiting > 0.1 else CALM)
        self.policy.sample(guest.sample(), guest.now)
        decision = self.policy.decide(Outside(guest.vcpus, self.policy.settings.max), guest.now)
        self.decisions.append(decision)
        if decision.goal != guest.vcpus:
            self.policy.begun(decision, guest.now)
            self._resizes = True
            guest.scale(decision.goal)


class Neon:
    """Neon's autoscaler-agent: every 5 s as many CPUs as make load1 at most 0.9 for each."""

    name = "Neon"
    every, share = 5.0, 0.9

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._next = 0.0

    def look(self, guest: SimGuest) -> None:
        """Scale to the goal at once, both ways."""
        if guest.now < self._next or guest.resizes:
            return
        self._next = guest.now + self.every
        goal = _within(math.ceil(guest.load1 / self.share), self._settings)
        if goal != guest.vcpus:
            guest.scale(goal)


class Proxmox:
    """The script that Proxmox's users run: every 300 s one core more above 80 %, one less below 20 %."""

    name = "Proxmox script"
    every, upper, lower = 300.0, 0.8, 0.2

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._next = self.every

    def look(self, guest: SimGuest) -> None:
        """Look at the CPU's use of this moment, as the script does."""
        if guest.now < self._next or guest.resizes:
            return
        self._next = guest.now + self.every
        use = guest.used / guest.vcpus
        goal = guest.vcpus + (1 if use > self.upper else -1 if use < self.lower else 0)
        goal = _within(goal, self._settings)
        if goal != guest.vcpus:
            guest.scale(goal)


class Hpa:
    """Kubernetes' HorizontalPodAutoscaler with its defaults: every 15 s, and down to the highest goal of 300 s.

    A replica is a vCPU. Its metrics are averages over 15 s. It at most doubles, or adds four, within 15 s.
    """

    name = "HPA"
    every, target, tolerance, window = 15.0, 0.8, 0.1, 300.0

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._next = self.every
        self._used = self._seconds = 0.0
        self._last = 0.0
        self._goals: deque[tuple[float, int]] = deque()

    def look(self, guest: SimGuest) -> None:
        """Sum the use up, and decide when it is time to."""
        seconds, self._last = guest.now - self._last, guest.now
        self._used += guest.used * seconds
        self._seconds += seconds
        if guest.now < self._next or guest.resizes:
            return
        self._next = guest.now + self.every
        ratio = self._used / self._seconds / guest.vcpus / self.target
        self._used = self._seconds = 0.0
        goal = guest.vcpus if abs(ratio - 1) <= self.tolerance else math.ceil(guest.vcpus * ratio)
        goal = _within(min(goal, max(2 * guest.vcpus, guest.vcpus + 4)), self._settings)
        self._goals.append((guest.now, goal))
        while self._goals[0][0] < guest.now - self.window:
            self._goals.popleft()
        if goal < guest.vcpus:
            goal = min(guest.vcpus, max(past for _, past in self._goals))
        if goal != guest.vcpus:
            guest.scale(goal)


RULES = (Ours, Neon, Proxmox, Hpa)


def _within(goal: int, settings: Settings) -> int:
    return min(max(goal, settings.min), settings.max)
