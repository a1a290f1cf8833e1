# SPDX-License-Identifier: Apache-2.0
"""Runs it all on three guests, and writes docs/reports/workloads.json and the tables of docs/workloads.md.

With --check it says instead what of the page is not what the report has.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from kit.e2e.machine import ROOT, SPEC, Machine, Vcpuctl
from kit.e2e.programs import done, shell
from kit.lab import Lab
from kit.lab import report as files
from kit.workloads.boots import BOOTS
from kit.workloads.kernels import TABLES
from kit.workloads.report import markdown

GUESTS = ("debian12-amd64", "debian13-amd64", "sid-amd64")
REPORT, PAGE = ROOT / "docs/reports/workloads.json", ROOT / "docs/workloads.md"


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="kit.workloads", description=__doc__)
    parser.add_argument(
        "--guest", action="append", choices=GUESTS, help="only this guest; the others stay as they were"
    )
    parser.add_argument("--table", action="append", choices=[*TABLES, *BOOTS], help="only this table")
    parser.add_argument("--check", action="store_true", help="only say whether the page has the report's tables")
    options = parser.parse_args(argv)
    report: dict[str, Any] = json.loads(REPORT.read_text()) if REPORT.exists() else {"schema_version": 1, "guests": {}}
    if options.check:
        same = markdown(PAGE.read_text(), report["guests"]) == PAGE.read_text()
        print("the page has the report's tables" if same else "the page differs: make workloads", file=sys.stderr)
        return 0 if same else 1
    with Lab(progress=lambda line: print(line, file=sys.stderr)) as lab:
        for guest in options.guest or GUESTS:
            found = report["guests"].setdefault(guest, {"tables": {}})
            for name in options.table or [*TABLES, *BOOTS]:
                print(f"{guest}: {name}", file=sys.stderr)
                with _machine(lab, guest, name) as machine:
                    found["kernel"] = shell(machine, "uname -r")
                    found["systemd"] = shell(machine, "systemctl --version | head -1")
                    found["qemu"] = str(machine.vm.qmp.execute("query-version")["package"])
                    found["tables"][name] = (TABLES.get(name) or BOOTS[name][1])(machine)
                report |= {"date": datetime.now(UTC).date().isoformat(), "commit": files.commit(ROOT)}
                files.write(REPORT, report)
                files.replace(PAGE, markdown(PAGE.read_text(), report["guests"]))
    return 0


@contextmanager
def _machine(lab: Lab, guest: str, table: str) -> Iterator[Machine]:
    """A guest for this table: with four CPUs, or as its boot says."""
    changes: dict[str, Any] = dict(BOOTS[table][0]) if table in BOOTS else {}
    with lab.vm(replace(SPEC, guest=guest, **changes)) as vm:
        vcpuctl = Vcpuctl(vm)
        machine = Machine(vm, vcpuctl)
        try:
            if table not in BOOTS:
                done(machine, "plug", "3", "--workload", "ignore")
            yield machine
        finally:
            vcpuctl.end()


if __name__ == "__main__":
    sys.exit(main())
