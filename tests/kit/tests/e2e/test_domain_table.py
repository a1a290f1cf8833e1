# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest
from kit.e2e import domain_table
from kit.lab import report


def test_trials_are_columns_and_what_one_of_them_lacks_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(domain_table, "_PARTS", tmp_path / "build/libvirt")
    monkeypatch.setattr(domain_table, "ROOT", tmp_path)
    monkeypatch.setattr(report, "commit", lambda root: "abc")
    assert domain_table.write() == ""
    domain_table.keep("a", {"libvirt": "12.8.0", "way": "unix"}, {"list": "ok", "plug": "ok"})
    domain_table.keep("b", {"libvirt": "9.0.0", "way": "ssh"}, {"list": "failed: it did"})
    domain_table.note("apply", "twenty took as long as one")
    page = domain_table.write()
    assert page.splitlines()[:6] == [
        "| libvirt | 12.8.0 | 9.0.0 |",
        "| --- | --- | --- |",
        "| way | unix | ssh |",
        "| list | ok | failed: it did |",
        "| plug | ok | not tried |",
        "",
    ]
    assert "- twenty took as long as one" in page
    assert (tmp_path / "build/libvirt.md").read_text() == page
    domain_table.clear()
    assert domain_table.write() == ""
