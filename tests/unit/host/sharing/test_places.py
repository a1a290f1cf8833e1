# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from contextlib import ExitStack

import pytest
from vcpu_host.errors import RefusedError
from vcpu_host.sharing.places import Places


def test_one_user_leaves_places_for_another_and_questions_leave_places_for_orders() -> None:
    places = Places(16, 8)
    with ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(places.taken(1))
        with pytest.raises(RefusedError) as refused, places.taken(1):
            raise AssertionError("it has all that it may have")
        assert refused.value.reason.code == "too-many"
        for _ in range(6):
            stack.enter_context(places.for_question(1))
        with pytest.raises(RefusedError), places.for_question(1):
            raise AssertionError("the rest is for orders")
        for _ in range(6):
            stack.enter_context(places.taken(2))
            stack.enter_context(places.for_question(2))
        stack.enter_context(places.taken(3))
        with pytest.raises(RefusedError), places.for_question(3):
            raise AssertionError("twelve are asked already")


def test_a_place_that_is_left_is_free() -> None:
    places = Places(4, 4)
    for _ in range(10):
        with places.taken(1), places.for_question(1):
            pass
    assert not places._of[True]
    assert not places._of[False]
