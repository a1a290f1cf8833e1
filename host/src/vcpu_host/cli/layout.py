# SPDX-License-Identifier: Apache-2.0
"""Tables and lines laid out for a terminal's width, in which nothing is ever cut off.

What does not fit into a line is broken between words, or after commas; a table too wide for that is written as a record
a row. A word that is longer than the terminal is wide is broken where it has to be. A file or a pipe has no width, and
gets each row and each text as one line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

#: Between two columns.
_GAP = "  "
#: The least that a line's text gets beside what leads it, in characters: on a narrower terminal the terminal breaks it.
_LEAST = 8
_PIECE = re.compile(r"[^ ,]*,|[^ ,]+ *| +")

#: A piece of a line and its style, in rich's words.
Span = tuple[str, str]


class Line(NamedTuple):
    """A text, which goes on under itself if it is broken. ``lead`` stands before it.

    ``whole``: it is for copying, and not to be broken; the terminal does that by itself, and knows that it is one line.
    """

    text: str
    style: str = ""
    lead: str = ""
    lead_style: str = ""
    whole: bool = False


class Column(NamedTuple):
    """A column's name, and whether its cells may be broken over several lines."""

    name: str
    breaks: bool = False


class Table(NamedTuple):
    """Rows of cells; a cell that is a span has its own style."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[str | Span]]


Block = Line | Table


def cell_len(text: str) -> int:
    """Return how many columns of a terminal the text takes."""
    if text.isascii() and text.isprintable():
        return len(text)
    # Late: its tables of wide characters are slow to load, and few texts need them.
    from rich.cells import cell_len

    return cell_len(text)


def compose(blocks: Sequence[Block], width: int | None) -> Iterator[list[Span]]:
    """Yield the lines of the blocks, none wider than ``width`` columns, as far as that can be; None is no bound."""
    for block in blocks:
        yield from _line(block, width) if isinstance(block, Line) else _table(block, width)


def _line(line: Line, width: int | None) -> Iterator[list[Span]]:
    room = None if width is None or line.whole else max(_LEAST, width - cell_len(line.lead))
    for number, text in enumerate(fold(line.text, room)):
        lead = " " * cell_len(line.lead) if number else line.lead
        yield [(lead, line.lead_style), (text, line.style)]


def _table(table: Table, width: int | None) -> Iterator[list[Span]]:
    rows = [[cell if isinstance(cell, tuple) else (cell, "") for cell in row] for row in table.rows]
    widths = _widths(table.columns, rows, width)
    if widths is None:
        yield from _records(table.columns, rows, width)
        return
    yield from _row([(column.name, "bold") for column in table.columns], widths)
    for row in rows:
        yield from _row(row, widths)


def _row(cells: Sequence[Span], widths: Sequence[int]) -> Iterator[list[Span]]:
    """Yield the lines of one row; those of a cell that is broken stand under each other."""
    columns = [fold(text, width) for (text, _), width in zip(cells, widths, strict=True)]
    for number in range(max(map(len, columns))):
        texts = [lines[number] if number < len(lines) else "" for lines in columns]
        last = max((place for place, text in enumerate(texts) if text), default=0)
        spans: list[Span] = []
        for place in range(last + 1):
            spans.append((texts[place], cells[place][1]))
            if place < last:
                spans.append((" " * (widths[place] - cell_len(texts[place])) + _GAP, ""))
        yield spans


def _widths(columns: Sequence[Column], rows: Sequence[Sequence[Span]], width: int | None) -> list[int] | None:
    """Return how wide each column is; None if there is no way to put them beside each other."""
    cells = [[row[place][0] for row in rows] for place in range(len(columns))]
    heads = [cell_len(column.name) for column in columns]
    widths = [max([head, *map(cell_len, texts)]) for head, texts in zip(heads, cells, strict=True)]
    over = 0 if width is None else sum(widths) + len(_GAP) * (len(columns) - 1) - width
    if over <= 0:
        return widths
    least = [
        max([head, *(cell_len(piece) for text in texts for piece in _pieces(text))]) if column.breaks else wide
        for column, head, texts, wide in zip(columns, heads, cells, widths, strict=True)
    ]
    if sum(widths) - sum(least) < over:
        return None
    for _ in range(over):
        widest = max(range(len(columns)), key=lambda place: (widths[place] > least[place], widths[place]))
        widths[widest] -= 1
    return widths


def _records(columns: Sequence[Column], rows: Sequence[Sequence[Span]], width: int | None) -> Iterator[list[Span]]:
    """Yield each row as a text of its own: names and values."""
    for row in rows:
        text = "; ".join(f"{column.name} {value}" for column, (value, _) in zip(columns, row, strict=True))
        for number, part in enumerate(fold(text, None if width is None else max(_LEAST, width - len(_GAP)))):
            yield [(_GAP if number else "", ""), (part, "")]


def fold(text: str, width: int | None) -> list[str]:
    """Return the text in lines of at most ``width`` columns, broken between words or after commas if that can be."""
    if width is None or cell_len(text) <= width:
        return [text]
    lines, line = [], ""
    for piece in _PIECE.findall(text):
        if line.strip(" ") and cell_len(line + piece.rstrip(" ")) > width:
            lines.append(line.rstrip(" "))
            line = ""
        line += piece
        while cell_len(line.rstrip(" ")) > width:
            end = _fits(line, width)
            lines.append(line[:end])
            line = line[end:]
    return [*lines, line.rstrip(" ")] if line.strip(" ") else lines


def _pieces(text: str) -> list[str]:
    return [piece.rstrip(" ") for piece in _PIECE.findall(text)]


def _fits(text: str, width: int) -> int:
    """Return how many of the first characters go into so many columns; one at least."""
    end = 1
    while end < len(text) and cell_len(text[: end + 1]) <= width:
        end += 1
    return end
