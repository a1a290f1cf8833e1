# SPDX-License-Identifier: Apache-2.0
"""Ansible's module for the agent's channel: what a task tells of each domain, by what vcpuctl says of it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from kit import documents
from kit.component.ansible import module, program, saying


def channel(running: dict[str, Any] | None, persistent: dict[str, Any] | None) -> dict[str, Any]:
    document = {
        "schema_version": 1,
        "channel_xml": "<channel/>",
        "connect": "qemu:///system",
        "domain": {"name": "web1", "uuid": "6695eb01-f6a4-8304-79aa-97f2502e193f"},
        "running": running,
        "persistent": persistent,
    }
    documents.check(document)
    return document


HAS: dict[str, Any] = {"channel": True, "added": False, "reason": None}
LACKS: dict[str, Any] = {"channel": False, "added": False, "reason": None}
GOT: dict[str, Any] = {"channel": True, "added": True, "reason": None}
NO = {"code": "no-channel", "who": "libvirt", "text": "no slot", "hint": "start it anew", "errno": ""}


@pytest.mark.parametrize(
    ("check", "document", "status", "outcome", "changed"),
    [
        (False, channel(HAS, HAS), 0, "done", False),
        (False, channel(GOT, GOT), 0, "done", True),
        (False, channel({**LACKS, "reason": NO}, GOT), 6, "partial", True),
        (True, channel(LACKS, None), 0, "planned", True),
        (True, channel(None, HAS), 0, "planned", False),
    ],
)
def test_a_domain_gets_the_channel_that_it_lacks(
    tmp_path: Path, check: bool, document: dict[str, Any], status: int, outcome: str, changed: bool
) -> None:
    ended = module(
        "vcpu_channel",
        os.environ,
        tmp_path,
        check=check,
        domains=["web1"],
        executable=saying(tmp_path, document, status),
    )
    assert (ended["outcomes"], ended["changed"]) == ({outcome: ["web1"]}, changed)
    assert bool(ended.get("failed")) is (outcome == "partial")
    applied = (tmp_path / "words").read_text().split()
    assert applied == ["-o", "json", "--connect=qemu:///system", "--domain=web1", "channel"] + ["--apply"] * (not check)


def test_a_domain_that_is_named_twice_is_given_the_channel_once_and_has_changed(tmp_path: Path) -> None:
    """What the second answer says would stand in the place of the first."""
    got, has = (json.dumps(channel(each, each)) for each in (GOT, HAS))
    asked = tmp_path / "asked"
    says = f"echo asked >>{asked}\ncase $(grep -c . {asked}) in 1) echo '{got}';; *) echo '{has}';; esac"
    ended = module("vcpu_channel", os.environ, tmp_path, domains=["web1", "web1"], executable=program(tmp_path, says))
    assert (ended["outcomes"], ended["changed"]) == ({"done": ["web1"]}, True)
    assert asked.read_text().split() == ["asked"]


def test_a_libvirt_that_is_gone_is_told_for_each_domain_and_fails_if_that_is_wanted(tmp_path: Path) -> None:
    error = {"code": "libvirt-gone", "who": "libvirt", "text": "no socket", "hint": "start it", "errno": ""}
    executable = saying(tmp_path, {"schema_version": 1, "error": error, "exit_status": 5}, 5)
    ended = module("vcpu_channel", os.environ, tmp_path, domains=["web1", "db1"], executable=executable)
    assert ended["msg"].startswith("2 of 2 VMs are not as wanted. db1: unreachable: libvirt: no socket; start it")
    ended = module("vcpu_channel", os.environ, tmp_path, domains=["web1"], executable=executable, fail_on=["failed"])
    assert ended["outcomes"] == {"unreachable": ["web1"]}


def test_a_domain_of_which_nobody_knows_whether_it_got_the_channel_may_have_changed(tmp_path: Path) -> None:
    error = {"code": "interrupted", "who": "vcpuctl", "text": "the wait was ended", "hint": "", "errno": ""}
    executable = saying(tmp_path, {"schema_version": 1, "error": error, "exit_status": 4}, 4)
    ended = module("vcpu_channel", os.environ, tmp_path, domains=["web1"], executable=executable)
    assert (ended["failed"], ended["changed"], ended["outcomes"]) == (True, True, {"unknown": ["web1"]})
