# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich import cells
from vcpu_host.cli.layout import Block, Column, Line, Table, cell_len, compose, fold

_WORDS = st.lists(st.text(st.sampled_from("ab1-,=ß漢"), min_size=1, max_size=12), min_size=1, max_size=30)
_WIDTHS = st.integers(1, 250)
_CELLS = st.text(st.sampled_from("abc,= 漢"), max_size=30)
_TABLES = st.integers(1, 6).flatmap(
    lambda count: st.builds(
        Table,
        st.lists(
            st.builds(Column, st.sampled_from(["A", "NAME", "GUEST CPU"]), st.booleans()),
            min_size=count,
            max_size=count,
        ),
        st.lists(st.lists(_CELLS, min_size=count, max_size=count), max_size=5),
    )
)


@given(st.text(st.characters(max_codepoint=0x2FFF), max_size=20))
def test_a_text_takes_as_many_columns_as_rich_says(text: str) -> None:
    assert cell_len(text) == cells.cell_len(text)


def _lines(block: Block, width: int | None) -> list[str]:
    return ["".join(text for text, _ in line) for line in compose([block], width)]


def _letters(text: str) -> str:
    return text.replace(" ", "")


@given(_WORDS, _WIDTHS)
def test_a_folded_text_has_every_word_in_its_order_and_no_line_too_long(words: list[str], width: int) -> None:
    lines = fold(" ".join(words), width)
    assert _letters("".join(lines)) == "".join(words)
    widest = max(map(cell_len, "".join(words)))
    assert all(cell_len(line) <= max(width, widest) for line in lines)
    if width >= max(map(cell_len, words)):
        assert " ".join(lines).split() == [part for line in lines for part in line.split()]
        assert all(line == line.strip() for line in lines)


@given(_WORDS, _WIDTHS)
def test_words_that_have_room_are_broken_at_most_after_a_comma(words: list[str], width: int) -> None:
    lines = fold(" ".join(words), max(width, *map(cell_len, words), 1))
    for line, following in pairwise(lines):
        broken = line.split()[-1] + following.split()[0]
        assert line.endswith(",") or broken not in words or line.split()[-1] in words


@given(_TABLES, _WIDTHS)
def test_no_letter_of_a_table_is_lost_at_any_width(table: Table, width: int) -> None:
    shown = "".join(_lines(table, width))
    for row in table.rows:
        for cell in row:
            for letter in set(_letters(str(cell))):
                assert shown.count(letter) >= str(cell).count(letter)


@given(_TABLES, st.integers(20, 250))
def test_a_table_is_as_wide_as_the_terminal_at_most(table: Table, width: int) -> None:
    assert all(cell_len(line) <= width for line in _lines(table, width))


def test_a_table_that_fits_has_a_line_a_row_and_its_columns_stand_under_their_names() -> None:
    table = Table((Column("SLOT"), Column("WHY", breaks=True)), [["1", "because of it"], ["23", "x"]])
    assert _lines(table, 80) == _lines(table, None) == ["SLOT  WHY", "1     because of it", "23    x"]


def test_where_it_does_not_fit_only_the_columns_that_may_are_broken() -> None:
    table = Table((Column("ID"), Column("WHY", breaks=True)), [["vcpu-1", "because of it"]])
    assert _lines(table, 18) == ["ID      WHY", "vcpu-1  because of", "        it"]


def test_where_nothing_can_be_broken_far_enough_a_row_becomes_a_record() -> None:
    table = Table((Column("ID"), Column("STATE")), [["a-long-name", "unplugging"]])
    assert _lines(table, 20) == ["ID a-long-name;", "  STATE unplugging"]


def test_a_line_goes_on_under_its_own_text() -> None:
    assert _lines(Line("one two three", lead="problem  "), 18) == ["problem  one two", "         three"]


def test_what_is_for_copying_is_not_broken() -> None:
    assert _lines(Line("-numa cpu,node-id=0", whole=True), 10) == ["-numa cpu,node-id=0"]


@pytest.mark.parametrize("text", ["", " ", ",", "a, b"])
def test_the_smallest_texts_stay_what_they_are(text: str) -> None:
    assert fold(text, 80) == [text]
