# SPDX-License-Identifier: Apache-2.0
"""Which VM is meant, and by which words."""

from __future__ import annotations

from pathlib import Path

import pytest
from vcpu_host.cli.parser import build_parser
from vcpu_host.cli.target import many, target_of
from vcpu_host.core.reason import Reason
from vcpu_host.errors import UsageError
from vcpu_host.local import target
from vcpu_host.local.target import AnyTarget, Target
from vcpu_host.local.unix_sockets import plain_name


@pytest.fixture
def vms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where VMs have their files."""
    monkeypatch.setattr(target, "directories", lambda: (tmp_path,))
    return tmp_path


def meant(*words: str, **environment: str) -> AnyTarget:
    """The VM that a command with these options has, in this environment."""
    return target_of(build_parser().parse_args([*words, "list"]), environment)


def refusal(*words: str, **environment: str) -> tuple[str, str]:
    """Code and text of the usage error."""
    with pytest.raises(UsageError) as error:
        meant(*words, **environment)
    assert error.value.reason.hint
    return error.value.reason.code, error.value.reason.text


# --- the environment --------------------------------------------------------------------------------------------------


def test_the_environment_names_the_vm_where_no_option_does(vms: Path) -> None:
    (vms / "web1.toml").write_text('qmp = "/web1/qmp"\n')
    assert meant(VCPUCTL_QMP="/q") == Target("/q")
    assert meant("--agent", "/a", VCPUCTL_QMP="/q") == Target("/q", "/a")
    assert meant(VCPUCTL_VM="web1") == Target("/web1/qmp")


def test_options_win_over_the_environment_whatever_it_says(vms: Path) -> None:
    (vms / "web1.toml").write_text('qmp = "/web1/qmp"\n')
    both = {"VCPUCTL_VM": "nobody", "VCPUCTL_QMP": "/other"}
    assert meant("--qmp", "/q", **both) == Target("/q")
    assert meant("--vm", "web1", **both) == Target("/web1/qmp")


def test_an_environment_that_names_two_names_none(vms: Path) -> None:
    (vms / "web1.toml").write_text('qmp = "/web1/qmp"\n')
    assert refusal(VCPUCTL_VM="web1", VCPUCTL_QMP="/q")[0] == "two-vms"


def test_a_variable_that_is_empty_is_none() -> None:
    assert meant(VCPUCTL_VM="", VCPUCTL_QMP="/q") == Target("/q")
    assert refusal(VCPUCTL_VM="", VCPUCTL_QMP="")[0] == "no-vm"
    assert refusal()[0] == "no-vm"


def test_a_name_from_the_environment_is_as_good_or_bad_as_one_of_an_option(vms: Path) -> None:
    assert refusal(VCPUCTL_VM="nobody")[0] == refusal("--vm", "nobody")[0] == "no-such-vm"
    assert vms.is_dir()


# --- a socket's name --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("/run/qmp", "/run/qmp"),
        ("qmp,server", "qmp,server"),
        ("./unix:x", "./unix:x"),
        ("", ""),
        ("@name", "@name"),
        ("unix:/run/qmp", "/run/qmp"),
        ("unix:/run/qmp,server=on,wait=off", "/run/qmp"),
        ("unix:/run/qmp,server,nowait", "/run/qmp"),
        ("unix:path=/run/qmp,server=on", "/run/qmp"),
        ("unix:/run/a,,b,server=on", "/run/a,b"),
        ("unix:name,abstract=on,server=on", "@name"),
        ("unix:name,abstract=off,server=on", "name"),
        ("unix:", ""),
    ],
)
def test_a_socket_may_be_named_as_qemu_is_given_it(text: str, name: str) -> None:
    assert plain_name(text) == name


def test_every_way_to_name_a_socket_takes_those_words(vms: Path) -> None:
    (vms / "web1.toml").write_text('qmp = "unix:/q,server=on"\nagent = "unix:/a"\n')
    expected = Target("/q", "/a")
    assert meant("--vm", "web1") == expected
    assert meant("--qmp", "unix:/q,server=on", "--agent", "unix:/a") == expected
    assert meant("--agent", "/a", VCPUCTL_QMP="unix:/q") == expected


@pytest.mark.parametrize(
    "text", ["tcp:127.0.0.1:4444,server=on", "telnet:localhost:4444", "pty:/dev/pts/3", "unix:/run/qmp,server=off"]
)
def test_what_is_no_unix_socket_on_which_qemu_listens_is_told_as_that(text: str) -> None:
    code, said = refusal("--qmp", text)
    assert code == "not-unix"
    assert text in said
    assert refusal("--qmp", "/q", "--agent", text)[0] == "not-unix"


def test_the_name_is_known_where_the_vm_goes_by_one(vms: Path) -> None:
    (vms / "web1.toml").write_text('qmp = "/web1/qmp"\n')
    assert meant("--vm", "web1").name == meant("--agent", "/a", VCPUCTL_VM="web1").name == "web1"
    assert meant("--qmp", "/q", VCPUCTL_VM="web1").name == ""


# --- more than one VM -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "environment", "named"),
    [
        (("--all",), {}, ["*"]),
        (("--all",), {"VCPUCTL_VM": "web1"}, ["*"]),
        (("--vm", "web1"), {}, []),
        (("--vm", "web1", "--vm", "web2"), {}, ["web1", "web2"]),
        (("--vm", "web?"), {}, ["web?"]),
        (("--qmp", "/q"), {"VCPUCTL_VM": "web*"}, []),
        ((), {"VCPUCTL_VM": "web*"}, ["web*"]),
        ((), {"VCPUCTL_VM": "web1"}, []),
        ((), {}, []),
    ],
)
def test_several_vms_are_meant_by_several_names_a_pattern_or_all(
    words: tuple[str, ...], environment: dict[str, str], named: list[str]
) -> None:
    assert many(build_parser().parse_args([*words, "list"]), environment) == named


def test_names_on_both_sides_of_the_command_add_up() -> None:
    assert many(build_parser().parse_args(["--vm", "a", "list", "--vm", "b", "--vm", "c"]), {}) == ["a", "b", "c"]


@pytest.mark.parametrize("words", [("--qmp", "/q"), ("--domain", "d"), ("--vm", "web1"), ("--all",)])
@pytest.mark.parametrize("variable", ["VCPUCTL_VM", "VCPUCTL_QMP"])
def test_a_variable_excludes_no_option_on_either_side_and_is_passed_over(
    words: tuple[str, ...], variable: str, vms: Path
) -> None:
    (vms / "web1.toml").write_text('qmp = "/web1/qmp"')
    for line in ([*words, "list"], ["list", *words]):
        args = build_parser().parse_args(line)
        assert many(args, {variable: "web*"}) == many(args, {})
        if words != ("--all",):
            assert target_of(args, {variable: "/other"}) == target_of(args, {})


def test_a_command_for_one_vm_is_refused_more(vms: Path) -> None:
    assert refusal("--vm", "web1", "--vm", "web2")[0] == "many-vms"
    assert refusal("--all")[0] == "many-vms"


# --- all of vms.d -----------------------------------------------------------------------------------------------------


def test_the_vms_that_are_known_are_those_of_all_directories_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, common = tmp_path / "own", tmp_path / "common"
    monkeypatch.setattr(target, "directories", lambda: (own, common, tmp_path / "none"))
    for folder, name, text in (
        (own, "web2", 'qmp = "/own"'),
        (common, "web2", 'qmp = "/common"'),
        (common, "db1", 'qmp = "/db1"'),
        (common, "broken", "qmp = 4"),
    ):
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.toml").write_text(text)
    (common / "README").write_text("no VM")
    found = target.known()
    assert list(found) == ["broken", "db1", "web2"]
    assert (found["db1"], found["web2"]) == (Target("/db1"), Target("/own"))
    broken = found["broken"]
    assert isinstance(broken, Reason)
    assert broken.code == "bad-vm-file"
