# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest
from vcpu_host.cli.parser import build_parser
from vcpu_host.cli.target import sockets
from vcpu_host.errors import UsageError
from vcpu_host.local import target


@pytest.fixture(name="places")
def _places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The user's and the system's vms.d, both empty."""
    places = tmp_path / "user", tmp_path / "system"
    for place in places:
        place.mkdir()
    monkeypatch.setattr(target, "directories", lambda: places)
    return places


def _refusal(name: str) -> tuple[str, str]:
    with pytest.raises(UsageError) as error:
        target.Target.named(name)
    return error.value.reason.code, error.value.reason.text


def test_a_vm_is_found_by_its_name(places: tuple[Path, Path]) -> None:
    (places[1] / "web1.toml").write_text('qmp = "/run/q"\nagent = "/run/a"\n')
    assert target.Target.named("web1") == target.Target("/run/q", "/run/a")


def test_the_agents_socket_may_be_left_out(places: tuple[Path, Path]) -> None:
    (places[1] / "web1.toml").write_text('qmp = "/run/q"\n')
    assert target.Target.named("web1").agent is None


def test_the_users_file_comes_before_the_systems(places: tuple[Path, Path]) -> None:
    for place in places:
        (place / "web1.toml").write_text(f'qmp = "/{place.name}"\n')
    assert target.Target.named("web1").qmp == "/user"


def test_a_missing_file_is_told_with_the_places_that_were_looked_in(places: tuple[Path, Path]) -> None:
    code, text = _refusal("web1")
    assert code == "no-such-vm"
    assert all(str(place) in text for place in places)


@pytest.mark.parametrize("name", ["", "../web1", "/etc/passwd", ".hidden", "a/b", "a\nb", "a b", "-o"])
def test_a_name_cannot_lead_out_of_the_directory(name: str, places: tuple[Path, Path]) -> None:
    (places[0].parent / "web1.toml").write_text('qmp = "/evil"\n')
    assert _refusal(name)[0] == "bad-vm-name"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "qmp is missing"),
        ('qmp = ""', "qmp is missing"),
        ("qmp = 3", "qmp is missing"),
        ('qmp = "/q"\nagent = 3', "agent is no path"),
        ('qmp = "/q"\nmonitor = "/m"', "unknown key 'monitor'; known are agent, qmp"),
        ("qmp = ", "web1.toml"),
        ("\x00", "web1.toml"),
        ("qmp = " + "[" * 20000, "web1.toml"),
    ],
)
def test_a_wrong_file_is_told_with_its_fault(text: str, words: str, places: tuple[Path, Path]) -> None:
    (places[0] / "web1.toml").write_text(text)
    code, said = _refusal("web1")
    assert code == "bad-vm-file"
    assert words in said


def test_a_file_that_is_not_utf8_is_told_as_wrong(places: tuple[Path, Path]) -> None:
    (places[0] / "web1.toml").write_bytes(b'qmp = "\xff"')
    assert _refusal("web1")[0] == "bad-vm-file"


def test_a_wrong_user_file_does_not_fall_back_to_the_systems(places: tuple[Path, Path]) -> None:
    (places[0] / "web1.toml").write_text("qmp = 1")
    (places[1] / "web1.toml").write_text('qmp = "/q"')
    assert _refusal("web1")[0] == "bad-vm-file"


def test_a_directory_in_the_files_place_is_told_as_wrong(places: tuple[Path, Path]) -> None:
    (places[0] / "web1.toml").mkdir()
    assert _refusal("web1")[0] == "bad-vm-file"


def test_the_users_place_follows_xdg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", "/xdg")
    assert target.directories() == (Path("/xdg/vcpuctl/vms.d"), Path("/etc/vcpuctl/vms.d"))
    monkeypatch.setenv("XDG_CONFIG_HOME", "")
    monkeypatch.setenv("HOME", "/home/ada")
    assert target.directories()[0] == Path("/home/ada/.config/vcpuctl/vms.d")


def test_an_agent_socket_on_the_command_line_comes_before_the_files(places: tuple[Path, Path]) -> None:
    (places[0] / "web1.toml").write_text('qmp = "/q"\nagent = "/a"\n')
    parse = build_parser().parse_args
    assert sockets(parse(["--vm", "web1", "list"])) == target.Target("/q", "/a")
    assert sockets(parse(["--vm", "web1", "--agent", "/b", "list"])) == target.Target("/q", "/b")
