# SPDX-License-Identifier: Apache-2.0
"""Which file of vms.d counts, and what people see of the document."""

from __future__ import annotations

from pathlib import Path

import pytest
from vcpu_host.cli import vms
from vcpu_host.cli.layout import compose
from vcpu_host.core import codes
from vcpu_host.core.qemu_argv import Chardev, CommandLine
from vcpu_host.core.reason import Origin, Reason
from vcpu_host.core.vms import Configured, Monitor, Process, Vms, join
from vcpu_host.documents.vms import of_vms
from vcpu_host.local import qemus, target

_WHY = Reason(codes.PROCESSES_UNSEEN, Origin.VCPUCTL, "some are hidden", "be root")


@pytest.fixture(name="places")
def _places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The user's and the system's vms.d, both empty, on a host without processes."""
    places = tmp_path / "user", tmp_path / "system"
    for place in places:
        place.mkdir()
    monkeypatch.setattr(target, "directories", lambda: places)
    monkeypatch.setattr(qemus, "seen", lambda: ([], None))
    return places


def _shown(seen: Vms, *, wide: bool = False, width: int | None = None) -> list[str]:
    blocks = vms.blocks(of_vms(seen), wide=wide)
    return ["".join(text for text, _ in line).rstrip() for line in compose(blocks, width)]


def _hidden() -> dict[str, str | None]:
    """Of each file, by its directory and name, the directory of the one that counts in its place."""
    return {
        f"{Path(file.file).parent.name}/{file.name}": None
        if file.hidden_by is None
        else Path(file.hidden_by).parent.name
        for file in vms.look().configured
    }


def test_the_users_file_hides_the_systems_also_if_it_is_wrong(places: tuple[Path, Path]) -> None:
    for place in places:
        (place / "a.toml").write_text('qmp = "/a"')
        (place / "b.toml").write_text("qmp = 1" if place is places[0] else 'qmp = "/b"')
    assert _hidden() == {"user/a": None, "user/b": None, "system/a": "user", "system/b": "user"}


def test_a_link_that_leads_nowhere_hides_none_as_it_is_with_vm(places: tuple[Path, Path]) -> None:
    (places[0] / "a.toml").symlink_to("nowhere")
    (places[1] / "a.toml").write_text('qmp = "/a"')
    assert _hidden() == {"user/a": None, "system/a": None}
    assert target.Target.named("a").told == "/a"


def test_a_file_that_is_not_used_and_processes_that_are_not_seen_are_told() -> None:
    files = [Configured("a", "/u/a.toml", "/a"), Configured("a", "/s/a.toml", "/b", hidden_by="/u/a.toml")]
    shown = _shown(join(files, [], _WHY, "/d"))
    assert "/s/a.toml: not used, /u/a.toml comes before it" in shown
    assert shown[-1] == "some are hidden; be root"


def test_where_there_is_nothing_that_is_told() -> None:
    assert _shown(join([], [], None, "/d")) == ["no VM is configured"]


@pytest.mark.parametrize("width", [None, 80, 30])
def test_a_command_is_one_line_on_any_terminal(width: int | None) -> None:
    says = CommandLine("web", port=Chardev("socket", "/a", listens=True))
    process = Process(7, "ada", 1, says, (Monitor("/run/web/qmp", "/run/web/qmp", key="1"),))
    seen = join([], [process], None, "/etc/vcpuctl/vms.d")
    offer = seen.found[0].offer
    assert offer is not None
    assert f"  {offer.command}" in _shown(seen, width=width)


def test_a_process_that_is_configured_stands_in_the_files_row_and_in_the_wide_table() -> None:
    process = Process(7, "ada", 1, CommandLine("web"), (Monitor("/q", "/q", key="1"),))
    seen = join([Configured("x", "/d/x.toml", "/q", "/a", key="1")], [process], None, "/d")
    assert _shown(seen) == ["NAME  REACHED AT  PROCESS", "x     /q          7"]
    assert "process 7 is x" in _shown(seen, wide=True)
    assert any(line.split() == ["x", "/q", "7", "/a", "/d/x.toml"] for line in _shown(seen, wide=True))
