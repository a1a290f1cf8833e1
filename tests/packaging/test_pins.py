# SPDX-License-Identifier: Apache-2.0
"""The pins: every file by hash, no word of where it comes from, and the oldest versions are the ones promised."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

PINS = ("ansible-newest", "ansible-oldest", "dev", "oldest", "proto", "uv", "vendor")
#: Debian's protobuf 3.21.12 is numbered 4.21.12 among Python packages.
RENUMBERED = {"protobuf": ("3.21.12", "4.21.12")}


@pytest.mark.parametrize("name", PINS)
def test_every_pin_is_exact_has_a_hash_and_names_no_index(root: Path, name: str) -> None:
    text = (root / f"requirements/{name}.txt").read_text()
    assert "://" not in text
    assert "--index" not in text
    entries = [entry for entry in re.split(r"\n(?=\S)", text) if entry and not entry.startswith("#")]
    assert entries
    loose = [entry.split("\n")[0] for entry in entries if "==" not in entry or "--hash=sha256:" not in entry]
    assert loose == []


def test_the_oldest_versions_under_test_are_the_floors_that_the_distributions_state(root: Path) -> None:
    pins = dict(re.findall(r"^([a-z][\w.-]*)==([^\s;]+)", (root / "requirements/oldest.in").read_text(), re.MULTILINE))
    # grpcio is there twice: the first is for the Python of the oldest Debian.
    pins["grpcio"] = re.search(r"^grpcio==(\S+) ;", (root / "requirements/oldest.in").read_text(), re.MULTILINE)[1]  # type: ignore[index]
    for part in ("proto", "host", "guest"):
        project = tomllib.loads((root / part / "pyproject.toml").read_text())["project"]
        optional = (need for needs in project.get("optional-dependencies", {}).values() for need in needs)
        for need in (*project["dependencies"], *optional):
            name, floor = re.match(r"([\w.-]+?)(?:==|>=)([\d.]+)", need).groups()  # type: ignore[union-attr]
            # libvirt-python is built against the libvirt of its machine: what the lab's hosts have is under test.
            if name in ("vcpu-proto", "libvirt-python"):
                continue
            stated, numbered = RENUMBERED.get(name, (floor, floor))
            assert stated == floor
            assert pins[name].removesuffix(".0") == numbered.removesuffix(".0"), need
