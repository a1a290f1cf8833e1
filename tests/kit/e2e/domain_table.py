# SPDX-License-Identifier: Apache-2.0
"""The table of what was tried on domains: put together into ``build/libvirt.json`` and ``.md`` at the run's end."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from kit.e2e.machine import ROOT
from kit.lab import report

SCHEMA_VERSION = 1
_PARTS = ROOT / "build" / "libvirt"
_ROWS, _FACTS = "rows", "facts"


def keep(name: str, described: Mapping[str, str], checks: Mapping[str, str]) -> None:
    """Write down what a trial gave: who was tried, and how each check went. Tests run in several processes."""
    _put(_ROWS, name, {"described": dict(described), "checks": dict(checks)})


def note(name: str, text: str) -> None:
    """Write down a figure of the run: a sentence."""
    _put(_FACTS, name, {"text": text})


def clear() -> None:
    """Forget earlier runs."""
    shutil.rmtree(_PARTS, ignore_errors=True)


def write() -> str:
    """Put what this run has found together, and return the page; nothing is written if there is nothing."""
    rows, facts = _parts(_ROWS), _parts(_FACTS)
    if not rows and not facts:
        return ""
    today = datetime.now(tz=UTC).date().isoformat()
    whole = {
        "schema_version": SCHEMA_VERSION,
        "date": today,
        "commit": report.commit(ROOT),
        "rows": rows,
        "facts": [each["text"] for each in facts],
    }
    report.write(ROOT / "build" / "libvirt.json", whole)
    page = _page(whole)
    report.replace(ROOT / "build" / "libvirt.md", page)
    return page


def _put(kind: str, name: str, found: Mapping[str, Any]) -> None:
    folder = _PARTS / kind
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(found))


def _parts(kind: str) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted((_PARTS / kind).glob("*.json"))]


def _page(whole: Mapping[str, Any]) -> str:
    lines: list[str] = []
    if whole["rows"]:
        # A check on a line, and a trial in a column: there are more checks than trials.
        trials = whole["rows"]
        described = list(trials[0]["described"])
        lines += [
            _line([described[0], *(each["described"][described[0]] for each in trials)]),
            _line(["---"] * (len(trials) + 1)),
        ]
        lines += [_line([part, *(each["described"][part] for each in trials)]) for part in described[1:]]
        lines += [
            _line([name, *(each["checks"].get(name, "not tried") for each in trials)]) for name in _checks(trials)
        ]
        lines.append("")
    lines += [f"- {fact}" for fact in whole["facts"]]
    lines += [""] if whole["facts"] else []
    return "\n".join([*lines, f"{whole['date']}, commit {whole['commit']}.", ""])


def _checks(trials: Iterable[Mapping[str, Any]]) -> list[str]:
    """All checks, in the order of the trial that has had most of them."""
    most = max((list(each["checks"]) for each in trials), key=len)
    others = (name for each in trials for name in each["checks"] if name not in most)
    return [*most, *dict.fromkeys(others)]


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"
