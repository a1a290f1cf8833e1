# SPDX-License-Identifier: Apache-2.0
"""The table of platforms: what each test found, put together into ``build/platforms.json`` and ``.md`` at the end."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from kit.e2e.machine import ROOT, Machine
from kit.e2e.platforms import CELLS, Cell
from kit.lab.report import commit, replace
from kit.lab.report import write as write_report

SCHEMA_VERSION = 1
_PARTS = ROOT / "build" / "platforms"


def describe(cell: Cell, machine: Machine) -> dict[str, Any]:
    """What is tried; asked before, since afterwards nobody may be left to answer."""
    vm = machine.vm.qmp.execute("query-version")["qemu"]
    return {
        "platform": cell.platform,
        "qemu": ".".join(str(vm[part]) for part in ("major", "minor", "micro")),
        "guest": f"{cell.guest}, Linux {machine.vm.shell('uname -r').strip()}",
        "accel": machine.vm.accel,
    }


def keep(cell: Cell, test: str, found: dict[str, Any]) -> None:
    """Write down what a test of one cell gave, in the place of what it gave before; tests run in several processes."""
    folder = _PARTS / cell.name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{test}.json").write_text(json.dumps(found))


def clear() -> None:
    """Forget the cells of earlier runs."""
    shutil.rmtree(_PARTS, ignore_errors=True)


def write() -> str:
    """Put the cells of this run together, and return the table; nothing is written if there are none."""
    cells = [found for cell in CELLS if (found := _found(cell)) is not None]
    if not cells:
        return ""
    names = _checks(cells)
    today = datetime.now(tz=UTC).date().isoformat()
    report: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "date": today,
        "commit": commit(ROOT),
        "complete": len(cells) == len(CELLS) and all(set(cell["checks"]) == set(names) for cell in cells),
    }
    report["cells"] = cells
    write_report(ROOT / "build" / "platforms.json", report)
    table = _table(report)
    replace(ROOT / "build" / "platforms.md", table)
    return table


def _found(cell: Cell) -> dict[str, Any] | None:
    """What the cell's tests gave, as one; no failure is hidden by another's success. None if there were none."""
    found: dict[str, Any] | None = None
    for part in (_PARTS / cell.name).glob("*.json"):
        more = json.loads(part.read_text())
        found = found or {**more, "checks": {}}
        for name, result in more["checks"].items():
            if not found["checks"].get(name, "").startswith("failed"):
                found["checks"][name] = result
    return found


def _checks(cells: Iterable[dict[str, Any]]) -> list[str]:
    """All checks, in the order of the cell that has had most of them."""
    return max((list(cell["checks"]) for cell in cells), key=len)


def _table(report: dict[str, Any]) -> str:
    names = _checks(report["cells"])
    described = ("platform", "qemu", "guest", "accel")
    rows = [["platform", "QEMU", "guest", "accel", *names], ["---"] * (len(described) + len(names))]
    rows += [
        [*(cell[part] for part in described), *(cell["checks"].get(name, "not tried") for name in names)]
        for cell in report["cells"]
    ]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([*lines, "", f"{report['date']}, commit {report['commit']}.", ""])
