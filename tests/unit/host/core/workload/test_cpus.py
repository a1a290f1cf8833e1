# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vcpu_host.core.workload import cpus


@pytest.mark.parametrize(
    ("text", "numbers"), [("", []), (" ", []), ("3", [3]), ("0-2,8", [0, 1, 2, 8]), ("65535", [65535])]
)
def test_a_kernels_list_is_a_set(text: str, numbers: list[int]) -> None:
    assert cpus.numbers(cpus.parse(text)) == numbers
    assert cpus.of(numbers) == cpus.parse(text)


@given(st.sets(st.integers(0, 65535), max_size=40), st.integers(0, 65535), st.integers(0, 300))
def test_what_is_written_is_read_again(some: set[int], low: int, length: int) -> None:
    numbers = sorted(some | set(range(low, min(low + length, 65536))))
    found = cpus.of(numbers)
    assert cpus.numbers(found) == numbers
    assert cpus.parse(cpus.text(found, most=10**6)) == found
    assert cpus.parse(",".join(map(str, reversed(numbers)))) == found


@pytest.mark.parametrize("text", ["x", "3-1", "-1", "65536", "1,,2", "1-", "٣", "1_0", "999999999"])
def test_what_is_no_list_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="CPU"):
        cpus.parse(text)


def test_a_set_is_written_in_ranges_and_cut_when_it_is_long() -> None:
    assert cpus.text(cpus.parse("0-2,8")) == "0-2,8"
    assert cpus.text(cpus.of(range(0, 100, 2)), most=2) == "0,2,..."
    assert cpus.named(cpus.parse("3")) == "CPU 3"
    assert cpus.named(cpus.parse("2-3")) == "CPUs 2-3"
    assert cpus.named(0) == "CPUs none"
