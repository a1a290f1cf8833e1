# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vcpu_host.core.text import more_vcpus, printable, ranges, some_vcpus


@given(st.text(max_size=600), st.integers(1, 500))
def test_no_text_brings_anything_unprintable_to_a_terminal(text: str, limit: int) -> None:
    assert printable(text, limit).isprintable()


@given(st.text(alphabet=st.characters(exclude_categories=("C", "Z")), max_size=400))
def test_printable_text_stays_as_it_is(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[2Jb", r"a\x1b[2Jb"),
        ("one\ntwo\r", r"one\ntwo\r"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\ud800", r"\ud800"),
        ("\x9b31m", r"\x9b31m"),
        ("\U000e0041", r"\U000e0041"),
        ("ok ü 漢 \\_SB_", "ok ü 漢 \\_SB_"),
    ],
)
def test_control_sequences_become_escapes(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text(max_size=600), st.integers(1, 500))
def test_a_text_is_never_longer_than_its_limit(text: str, limit: int) -> None:
    assert len(printable(text, limit)) <= limit


def test_a_cut_is_shown() -> None:
    assert printable("x" * 11, 10) == "x" * 9 + "…"
    assert printable("x" * 10, 10) == "x" * 10
    assert printable("\x1b" * 10, 10).endswith("…")


@pytest.mark.parametrize(("numbers", "words"), [([], ""), ([3], "3"), ([1, 2], "1-2"), ([0, 2, 3, 4, 9], "0, 2-4, 9")])
def test_neighbours_are_a_range(numbers: list[int], words: str) -> None:
    assert ranges(numbers) == words


def test_one_vcpu_is_told_as_one() -> None:
    assert [some_vcpus(count) for count in (0, 1, 2)] == ["0 vCPUs", "1 vCPU", "2 vCPUs"]
    assert [more_vcpus(count) for count in (0, 1, 2)] == ["no more vCPUs", "1 more vCPU", "2 more vCPUs"]
