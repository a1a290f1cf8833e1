# SPDX-License-Identifier: Apache-2.0
"""The Ansible collection: what it says of itself agrees with what it does, and the page's plays are plays."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import collection
import pytest
import yaml  # type: ignore[import-untyped]
from ansible_collections.vcpuctl.vcpu.plugins.module_utils.documents import SHORTFALLS
from kit.component.ansible import environment

if TYPE_CHECKING:
    from debfile import Run

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / collection.SOURCES
ROLES = ("vcpu_guest", "vcpu_host")
MODULES = ("vcpu_channel", "vcpu_info", "vcpu_scale")


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def documentation(module: str) -> dict[str, Any]:
    text = (SOURCES / f"plugins/modules/{module}.py").read_text()
    found = re.search(r'^DOCUMENTATION = r"""\n(.*?)^"""', text, re.DOTALL | re.MULTILINE)
    assert found is not None
    read: dict[str, Any] = yaml.safe_load(found[1])
    return read


@pytest.mark.parametrize("role", ROLES)
def test_a_roles_defaults_are_those_that_its_options_tell(role: str) -> None:
    defaults = read(SOURCES / f"roles/{role}/defaults/main.yml")
    specs = read(SOURCES / f"roles/{role}/meta/argument_specs.yml")["argument_specs"]
    options = {name: option for spec in specs.values() for name, option in spec["options"].items()}
    assert {name: option["default"] for name, option in options.items()} == defaults
    assert all(name.startswith(f"{role}_") for name in options)


@pytest.mark.parametrize("role", ROLES)
def test_a_role_uses_no_variable_that_its_options_do_not_have(role: str) -> None:
    known = set(read(SOURCES / f"roles/{role}/defaults/main.yml"))
    texts = {path: path.read_text() for path in sorted((SOURCES / f"roles/{role}").rglob("*.*"))}
    made = {
        *("vcpu_host_misnamed", "vcpu_host_wanted"),
        *(f"vcpu_guest_{name}" for name in ("removed", "pip", "files", "sums", "named", "apt", "why", "portless")),
    }
    # One file of tasks may use what another has found.
    made |= {name for text in texts.values() for name in re.findall(r"register: (\w+)", text)}
    for path, text in texts.items():
        used = set(re.findall(rf"\b{role}_[a-z_]+\b", text))
        assert used - known - made == set(), path


@pytest.mark.parametrize("module", ["vcpu_channel", "vcpu_scale"])
def test_every_way_to_fall_short_can_be_chosen_and_fails_unless_others_are(module: str) -> None:
    option = documentation(module)["options"]["fail_on"]
    assert option["choices"] == option["default"] == list(SHORTFALLS)


def test_what_is_told_of_the_release_names_every_module_and_every_role() -> None:
    release = read(SOURCES / "changelogs/changelog.yaml")["releases"]["0.1.0"]
    assert {each["name"] for each in release["modules"]} == set(MODULES)
    assert {each["name"] for each in release["objects"]["role"]} == set(ROLES)
    assert {path.stem for path in (SOURCES / "plugins/modules").glob("*.py")} == set(MODULES)
    assert {path.name for path in (SOURCES / "roles").iterdir()} == set(ROLES)
    log = (SOURCES / "CHANGELOG.rst").read_text()
    assert all(f"vcpuctl.vcpu.{name} - " in log for name in (*MODULES, *ROLES))


def test_the_plays_of_the_page_are_plays(run: Run, tmp_path: Path) -> None:
    page = (ROOT / "docs/fleets.md").read_text()
    blocks = [block for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if block.startswith("- hosts")]
    assert len(blocks) > 3
    plays = [play for block in blocks for play in yaml.safe_load(block)]
    book = tmp_path / "book.json"
    book.write_text(json.dumps(plays))
    ansible = environment({}, tmp_path)
    program = Path(ansible["PATH"].partition(":")[0]) / "ansible-playbook"
    run(str(program), "--syntax-check", "--inventory", "hypervisors,guests,", str(book), env=ansible)
    for play in plays:
        for role in play.get("roles", []):
            known = read(SOURCES / f"roles/{role['role'].rpartition('.')[2]}/defaults/main.yml")
            assert set(role["vars"]) <= set(known)
        for task in play.get("tasks", []):
            for module in MODULES:
                options = task.get(f"vcpuctl.vcpu.{module}", {})
                assert set(options) <= set(documentation(module)["options"])
