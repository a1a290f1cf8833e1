# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vcpu_guest.core.cpulist import LIMIT, parse, render


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
