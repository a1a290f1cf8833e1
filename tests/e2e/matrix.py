# SPDX-License-Identifier: Apache-2.0
"""The table of platforms: what each test found, put together into ``build/platforms.json`` and ``.md`` at the end."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from lab.report import commit, replace
from lab.report import write as write_report

from e2e.conftest import ROOT, Machine
from e2e.platforms import CELLS, Cell

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


def keep(cell: Cell, found: dict[str, Any]) -> None:
    """Write down what one cell gave; tests run in several processes."""
    _PARTS.mkdir(parents=True, exist_ok=True)
    (_PARTS / f"{cell.name}.json").write_text(json.dumps(found))


def clear() -> None:
    """Forget the cells of earlier runs."""
    for part in _PARTS.glob("*.json"):
        part.unlink()


def write() -> None:
    """Put the cells of this run together; nothing is written if there are none."""
    order = [cell.name for cell in CELLS]
    parts = sorted(_PARTS.glob("*.json"), key=lambda part: order.index(part.stem))
    if not parts:
        return
    cells = [json.loads(part.read_text()) for part in parts]
    today = datetime.now(tz=UTC).date().isoformat()
    report: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "date": today,
        "commit": commit(ROOT),
        "complete": len(cells) == len(CELLS),
    }
    report["cells"] = cells
    write_report(ROOT / "build" / "platforms.json", report)
    replace(ROOT / "build" / "platforms.md", _table(report))


def _table(report: dict[str, Any]) -> str:
    names = list(report["cells"][0]["checks"])
    rows = [["platform", "QEMU", "guest", *names], ["---"] * (3 + len(names))]
    rows += [
        [cell["platform"], cell["qemu"], cell["guest"], *(cell["checks"][name] for name in names)]
        for cell in report["cells"]
    ]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([*lines, "", f"{report['date']}, commit {report['commit']}, {report['cells'][0]['accel']}.", ""])
