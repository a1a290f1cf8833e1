# SPDX-License-Identifier: Apache-2.0
"""The report as a document, and its tables in docs/workloads.md, between markers that name them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

#: A guest's tables by their names; a table's rows, and a row's cells, by theirs.
Tables = Mapping[str, Mapping[str, Mapping[str, str]]]
_MARK = re.compile(r"(<!-- table (?P<name>[a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def markdown(text: str, guests: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the page with each table anew; one that no guest has is empty."""
    return _MARK.sub(lambda mark: f"{mark[1]}{_table(mark['name'], guests)}{mark[3]}", text)


def _table(name: str, guests: Mapping[str, Mapping[str, Any]]) -> str:
    """Rows by name, cells by what happened; kernels that show the same share a row."""
    tables = {guest: found["tables"][name] for guest, found in guests.items() if name in found["tables"]}
    if not tables:
        return ""
    columns = list(dict.fromkeys(column for table in tables.values() for row in table.values() for column in row))
    lines = [f"| | kernel | {' | '.join(columns)} |", f"|---|---|{'---|' * len(columns)}"]
    for row in dict.fromkeys(row for table in tables.values() for row in table):
        alike: dict[tuple[str, ...], list[str]] = {}
        for guest, table in tables.items():
            if row in table:
                cells = tuple(table[row].get(column, "") for column in columns)
                alike.setdefault(cells, []).append(_short(guests[guest]["kernel"]))
        for cells, kernels in alike.items():
            lines.append(f"| {row} | {', '.join(kernels)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _short(kernel: str) -> str:
    """Return "6.1" for "6.1.0-56-cloud-amd64"."""
    return ".".join(kernel.split(".")[:2])
