# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from pathlib import Path

import pytest
from vcpu_host.cli.parser import build_parser
from vcpu_host.cli.target import target_of
from vcpu_host.core.reason import Reason
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
    assert target.Target.named("web1") == target.Target("/run/q", None)


def test_a_vms_file_may_say_what_is_done_about_the_guests_programs(places: tuple[Path, Path]) -> None:
    (places[1] / "web1.toml").write_text('qmp = "/run/q"\n')
    (places[1] / "web2.toml").write_text('qmp = "/run/q"\nworkload = "refuse"\n')
    (places[1] / "web3.toml").write_text('libvirt = "test:///"\ndomain = "x"\nworkload = "ignore"\n')
    assert [target.Target.named(name).workload for name in ("web1", "web2", "web3")] == ["warn", "refuse", "ignore"]
    for wrong in ('"often"', "true", "1"):
        (places[1] / "web1.toml").write_text(f'qmp = "/run/q"\nworkload = {wrong}\n')
        code, text = _refusal("web1")
        assert code == "bad-vm-file"
        assert "warn, ignore, refuse" in text


def test_the_users_file_comes_before_the_systems(places: tuple[Path, Path]) -> None:
    for place in places:
        (place / "web1.toml").write_text(f'qmp = "/{place.name}"\n')
    assert target.Target.named("web1").told == "/user"


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
        (
            'qmp = "/q"\nmonitors = "/m"',
            "unknown key 'monitors'; known are agent, autoscale, domain, libvirt, monitor, qmp",
        ),
        ('qmp = "/q"\n[autoscale]\n', "autoscale.max is missing"),
        ('qmp = "/q"\n[autoscale]\nmax = 2\nmin = 3\n', "more than autoscale.max"),
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
    assert target_of(parse(["--vm", "web1", "list"])) == target.Target("/q", "/a")
    assert target_of(parse(["--vm", "web1", "--agent", "/b", "list"])) == target.Target("/q", "/b")


def _listed() -> list[tuple[str, str]]:
    """The directory and name of each file, with where its VM is, or the code of what is wrong with it."""
    return [
        (f"{path.parent.name}/{path.name}", says.code if isinstance(says, Reason) else says.told)
        for path, says in target.listed()
    ]


def test_files_are_listed_the_users_first_and_a_wrong_one_hides_no_other(places: tuple[Path, Path]) -> None:
    (places[1] / "a.toml").write_text('qmp = "/a"')
    (places[0] / "b.toml").write_text("qmp = 1")
    (places[0] / "a.toml").write_text('qmp = "/mine"')
    (places[0] / "no toml").touch()
    (places[0] / ".swp.toml").touch()
    assert _listed() == [("user/a.toml", "/mine"), ("user/b.toml", "bad-vm-file"), ("system/a.toml", "/a")]


def test_what_can_be_no_vms_file_is_listed_with_the_reason(places: tuple[Path, Path]) -> None:
    os.mkfifo(places[0] / "fifo.toml")
    (places[0] / "link.toml").symlink_to("nowhere")
    (places[0] / "-x.toml").touch()
    wrong = {"user/-x.toml": "bad-vm-name", "user/fifo.toml": "bad-vm-file", "user/link.toml": "no-such-vm"}
    assert dict(_listed()) == wrong


def test_a_fifo_is_told_as_wrong_and_not_waited_for(places: tuple[Path, Path]) -> None:
    os.mkfifo(places[0] / "web1.toml")
    assert _refusal("web1")[0] == "bad-vm-file"


def test_a_directory_that_is_not_there_lists_nothing_and_one_that_is_a_file_is_told(places: tuple[Path, Path]) -> None:
    places[0].rmdir()
    places[1].rmdir()
    assert _listed() == []
    places[1].touch()
    assert [code for _, code in _listed()] == ["bad-vm-file"]


def test_root_adds_vms_for_all_users_and_others_for_themselves(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert target.own_directory() == places[1]
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert target.own_directory() == places[0]


def test_any_change_of_a_file_has_other_marks_and_looking_alone_has_not(places: tuple[Path, Path]) -> None:
    seen = [target.marks()]

    def changed() -> bool:
        seen.append(target.marks())
        return seen[-1] != seen[-2]

    path = places[1] / "web1.toml"
    path.write_text('qmp = "/a"\n')
    assert changed()
    target.Target.named("web1")
    list(target.listed())
    assert not changed()
    for text in ('qmp = "/ab"\n', 'qmp = "/ba"\n'):  # the second is as long as the first
        new = path.with_suffix(".new")
        new.write_text(text)
        new.replace(path)
        assert changed()
    path.chmod(0o600)
    assert changed()
    (places[0] / "link.toml").symlink_to("nowhere")
    assert changed()
    (places[0] / "nowhere").write_text("")
    assert changed()
    path.unlink()
    assert changed()
    places[1].rmdir()
    assert changed()


def test_a_number_of_thousands_of_digits_is_a_mistake_in_the_file(places: tuple[Path, Path]) -> None:
    (places[0] / "web1.toml").write_text("qmp = " + "9" * 5000)
    assert _refusal("web1")[0] == "bad-vm-file"


def test_a_relative_path_in_a_directory_that_is_gone_is_an_error_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(UsageError, match="cannot be told: No such file or directory") as error:
        _ = target.Target("qmp").place
    assert error.value.reason.hint.startswith("give the whole path")
    assert target.Target("/qmp").place == "/qmp"


def test_a_configuration_that_is_no_directory_is_told_with_the_variable_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "file"
    home.touch()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home))
    for asks in (target.known, lambda: target.Target.named("web1")):
        with pytest.raises(UsageError, match=r"file/vcpuctl/vms\.d: Not a directory") as error:
            asks()
        assert error.value.reason.code == "bad-vm-file"
        assert error.value.reason.hint.startswith("XDG_CONFIG_HOME says where your own files are: mend or unset it")
