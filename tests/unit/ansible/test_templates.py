# SPDX-License-Identifier: Apache-2.0
"""What the roles write: files of VMs and the agent's configuration, which say what the inventory says, and the fact."""

from __future__ import annotations

import json
import os
import subprocess
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import collection
import pytest
from ansible.plugins.filter.core import FilterModule
from ansible.plugins.test.core import TestModule as AnsiblesTests  # pytest would take it for tests
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from vcpu_guest.config import load
from vcpu_host.autoscale.settings import KEYS, parse
from vcpu_host.local import target

ROLES = Path(__file__).resolve().parents[3] / collection.SOURCES / "roles"
SCHEDULE = [
    {"days": ["mon", "fri"], "from": "08:00", "to": "18:00", "min": 4},
    {"from": "22:00", "to": "06:00", "min": 2},
]
AUTOSCALE: dict[str, Any] = {
    "min": 1,
    "max": 8,
    "mode": "act",
    "target": 0.75,
    "pressure": 0.0,
    "steal": 1,
    "up_window": 0.5,
    "down_window": 86400,
    "up_pause": 2.5,
    "down_pause": 1e-07,
    "turn_pause": 0,
    "operator_hold": 600,
    "boot_grace": 60.0,
    "schedule": SCHEDULE,
}
SOCKETS = {
    "qmp": "/run/vms/web 1/qmp.sock",
    "agent": "@vms/web1 \U0001f40c",
    "workload": "refuse",
    "autoscale": AUTOSCALE,
}
DOMAIN = {"libvirt": "qemu+ssh://root@h/system?no_tty=1", "domain": 'a "b" \\ c\n\x7f\t𝔵é', "monitor": False}


@cache
def read(template: str) -> Template:
    """The template as Ansible reads it: with this setting, and with these filters and tests of its own."""
    made = Environment(
        loader=FileSystemLoader([ROLES / role / "templates" for role in ("vcpu_host", "vcpu_guest")]),
        trim_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
        autoescape=False,  # no HTML
    )
    made.filters.update(FilterModule().filters())
    made.tests.update(AnsiblesTests().tests())
    return made.get_template(template)


def written(template: str, **variables: object) -> str:
    return read(template).render(**variables)


def vm(**keys: object) -> str:
    return written("vm.toml.j2", item={"key": "web1", "value": keys})


@pytest.mark.parametrize("keys", [SOCKETS, DOMAIN])
def test_a_vms_file_says_what_the_inventory_says(keys: dict[str, Any], tmp_path: Path) -> None:
    text = vm(**keys)
    assert tomllib.loads(text) == keys
    assert text.startswith("# Written by Ansible.\n"), "by this line the role knows its own"
    assert text.endswith("\n")
    assert len(text.splitlines()) == 1 + len(keys)
    path = tmp_path / "web1.toml"
    path.write_text(text)
    assert target._read(path).autoscale == (parse(AUTOSCALE) if "autoscale" in keys else None)


def test_no_key_of_a_vms_file_is_left_untried() -> None:
    assert {*SOCKETS, *DOMAIN} == target._KEYS
    assert set(AUTOSCALE) == set(KEYS)


def test_what_is_null_is_left_out_wherever_it_stands() -> None:
    text = vm(qmp="/q", agent=None, autoscale={"max": 2, "mode": None, "schedule": [None, {"min": 1, "to": None}]})
    assert tomllib.loads(text) == {"qmp": "/q", "autoscale": {"max": 2, "schedule": [{"min": 1}]}}


TEXTS = st.text()  # without surrogates, which no file can have
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda each: st.lists(each, max_size=3) | st.dictionaries(TEXTS, each, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(TEXTS, VALUES, max_size=4))
def test_any_keys_and_values_that_toml_can_have_come_through(keys: dict[str, Any]) -> None:
    assert tomllib.loads(vm(**keys)) == keys


def configuration(path: Path, **keys: object) -> dict[str, Any]:
    path.write_text(written("vcpud.conf.j2", vcpu_guest_config=keys))
    return tomllib.loads(path.read_text())


def test_the_agents_configuration_says_what_the_inventory_says_and_leaves_out_what_is_null(tmp_path: Path) -> None:
    path = tmp_path / "vcpud.conf"
    keys = {"port": '/dev/\U0001f40c "\x7f', "eject_gate": True, "hook_timeout": 2.5}
    assert configuration(path, **keys, log_level=None) == keys
    assert load(str(path), required=True).eject_gate is True


def fact(folder: Path, said: str) -> dict[str, Any]:
    """Return the fact of a host whose vcpuctl says this."""
    (folder / "said").write_text(said)
    program = folder / "vcpuctl"
    program.write_text(f"#!/bin/sh\ncat {folder}/said\n")
    program.chmod(0o755)
    path = folder / "vcpuctl.fact"
    path.write_text(written("vcpuctl.fact.j2", vcpu_host_venv="/nowhere"))
    done = subprocess.run(
        ["sh", str(path)],
        env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def test_the_fact_of_a_host_that_cannot_say_its_vms_says_why_and_one_that_has_none_has_none(tmp_path: Path) -> None:
    for code, text, told in (
        ("bad-vm-file", "/etc/vcpuctl/vms.d: Permission denied", "/etc/vcpuctl/vms.d: Permission denied"),
        ("no-such-vm", "there is no VM in vms.d", None),
    ):
        error = {"code": code, "who": "vcpuctl", "text": text, "hint": "", "errno": ""}
        document = {"schema_version": 1, "error": error, "exit_status": 2}
        assert fact(tmp_path, json.dumps(document)) == {"vms": {}, "error": told}
    for said in ("", "[]", '{"schema_version": 1, "vms": [{}]}'):
        unread = fact(tmp_path, said)
        assert (unread["vms"], bool(unread["error"])) == ({}, True)


def test_the_fact_has_the_same_keys_for_a_vm_that_cannot_be_reached(tmp_path: Path) -> None:
    reason = {"code": "qemu-gone", "who": "qemu", "text": "no", "hint": "", "errno": ""}
    seen = {
        "vm": {"possible_vcpus": 4, "plugged_vcpus": 2, "online_vcpus": 2},
        "agent": {"version": "0.1.0"},
        "agent_trouble": None,
    }
    parts = [
        {"vm": "gone", "exit_status": 5, "document": None, "error": reason},
        {"vm": "web1", "exit_status": 0, "document": seen, "error": None},
    ]
    vms = fact(tmp_path, json.dumps({"schema_version": 1, "vms": parts}))["vms"]
    assert vms["web1"] == {
        "exit_status": 0,
        "possible": 4,
        "plugged": 2,
        "online": 2,
        "agent": "0.1.0",
        "trouble": None,
    }
    assert vms["gone"] == {**dict.fromkeys(vms["web1"]), "exit_status": 5, "trouble": "qemu-gone"}
