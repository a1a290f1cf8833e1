# SPDX-License-Identifier: Apache-2.0
"""How many programs are served at once: no user has all places, and questions never have those that orders need."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from ..core import codes
from ..core.reason import Origin, Reason
from ..errors import RefusedError


class Places:
    """``most`` places, of which one user has ``of_one`` at most; a quarter of either is not for questions.

    A question is whatever changes nothing: some last for as long as somebody looks on.
    """

    def __init__(self, most: int, of_one: int) -> None:
        self._bounds = {False: (most, of_one), True: (most - most // 4, of_one - of_one // 4)}
        self._all = {False: 0, True: 0}
        self._of = {False: Counter[int](), True: Counter[int]()}

    @contextmanager
    def taken(self, user: int) -> Iterator[None]:
        """Have a place meanwhile, whatever for. Raise RefusedError "too-many" if there is none."""
        with self._taken(user, question=False):
            yield

    @contextmanager
    def for_question(self, user: int) -> Iterator[None]:
        """Use a place that was taken for a question. Raise RefusedError "too-many" if it is to be left to orders."""
        with self._taken(user, question=True):
            yield

    @contextmanager
    def _taken(self, user: int, *, question: bool) -> Iterator[None]:
        most, of_one = self._bounds[question]
        if self._all[question] >= most:
            raise _too_many("all users' programs")
        if self._of[question][user] >= of_one:
            raise _too_many(f"programs of the user with the id {user}")
        self._all[question] += 1
        self._of[question][user] += 1
        try:
            yield
        finally:
            self._all[question] -= 1
            self._of[question][user] -= 1
            self._of[question] += Counter()  # which leaves out whoever has none


def _too_many(whose: str) -> RefusedError:
    text = f"the process that has the VM serves as many {whose} at once as it may: this one is not served"
    return RefusedError(Reason(codes.TOO_MANY, Origin.VCPUCTL, text, "end some of those that watch, or try again"))
