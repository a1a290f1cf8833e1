# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vcpu_guest.core.cpulist import LIMIT, brief, parse, render


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("0\n", {0}),
        ("0-3,8", {0, 1, 2, 3, 8}),
        ("", set()),
        ("\n", set()),
        (" (null)\n", set()),
    ],
)
def test_reads_what_the_kernel_writes(text: Any, numbers: Any) -> None:
    assert parse(text) == numbers


@pytest.mark.parametrize("text", ["x", "1-", "-1", "3-1", "1,,2", "1_0", "+1", "٣", "0-999999", str(LIMIT), "1 2"])
def test_does_not_believe_what_is_no_list(text: Any) -> None:
    with pytest.raises(ValueError, match="not a CPU list"):
        parse(text)


@given(st.frozensets(st.integers(0, LIMIT - 1), max_size=200))
def test_reading_undoes_writing(numbers: Any) -> None:
    assert parse(render(numbers)) == numbers


def test_writes_runs_as_the_kernel_does() -> None:
    assert render([5, 0, 1, 2, 2]) == "0-2,5"


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        (set(), ""),
        ({0, 1, 2, 5}, "0-2,5"),
        (set(range(1, 16, 2)), "1,3,5,7,9,11,13,15"),
        (set(range(1, 480, 2)), "1, 3, 5 and 237 more"),
        ({*range(4), *range(10, 30, 2)}, "0-3, 10, 12 and 8 more"),
    ],
)
def test_in_a_sentence_a_long_list_is_its_beginning_and_how_many_follow(numbers: set[int], words: str) -> None:
    assert brief(frozenset(numbers)) == words
