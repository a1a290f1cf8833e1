# SPDX-License-Identifier: Apache-2.0
"""vcpud as a service without a package: what is put below a root, what is missing, and what is taken away."""

from __future__ import annotations

import re
import sys
import sysconfig
from pathlib import Path

import pytest
from vcpu_guest import __version__, install
from vcpu_guest.config import DEFAULT_PATH, Settings, load
from vcpu_guest.main import main

PACKAGING = Path(__file__).resolve().parents[3] / "packaging"
PLACES = (DEFAULT_PATH, install.PAGE, install.RULE, install.UNIT)


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The root of a system with systemd, udev, and vcpud by pip in /opt/vcpud."""
    home = tmp_path / "opt/vcpud"
    for name in ("usr/bin/systemctl", "usr/bin/udevadm", "opt/vcpud/bin/vcpud"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch(mode=0o755)
    monkeypatch.setattr(sys, "prefix", str(home))
    monkeypatch.setattr(sys, "base_prefix", "/usr")
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(home / "bin"))
    return tmp_path


def files(root: Path) -> dict[str, str]:
    return {
        f"/{path.relative_to(root)}": path.read_text()
        for path in root.rglob("*")
        if path.is_file() and path.suffix in {".service", ".rules", ".conf", ".8"}
    }


def run(*words: str, root: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    status = main([*words, "--root", str(root)])
    out, err = capsys.readouterr()
    return status, out, err


def test_the_service_is_what_the_package_has_with_its_own_command(
    image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = run("--install-service", root=image, capsys=capsys)
    assert (status, err) == (0, "")
    assert {line.split()[1] for line in out.splitlines()} == {f"{image}{path}" for path in PLACES}
    assert out.splitlines()[-1].endswith(install.RULE), "udev must not ask for a unit that is not there yet"
    found = files(image)
    assert set(found) == set(PLACES)
    mark, _, unit = found[install.UNIT].partition("\n")
    assert __version__ in mark
    assert unit == (PACKAGING / "systemd/vcpud.service").read_text().replace("/usr/bin/vcpud", "/opt/vcpud/bin/vcpud")
    assert found[install.RULE].partition("\n")[2] == (PACKAGING / "udev/60-vcpud.rules").read_text()
    assert f"vcpuctl {__version__}" in found[install.PAGE]
    assert load(f"{image}{DEFAULT_PATH}", required=True) == Settings()
    assert {(image / path.lstrip("/")).stat().st_mode & 0o777 for path in PLACES} == {0o644}


def test_a_second_time_nothing_is_written_and_a_newer_version_takes_the_place_of_an_older(
    image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("--install-service", root=image, capsys=capsys)
    assert run("--install-service", root=image, capsys=capsys) == (0, "", "")
    unit = image / install.UNIT.lstrip("/")
    unit.write_text(unit.read_text().replace(f"({__version__})", "(0.0.9)"))
    assert run("--install-service", root=image, capsys=capsys)[1] == f"wrote {unit}\n"
    assert f"({__version__})" in unit.read_text()


def test_uninstalling_leaves_nothing_and_a_second_time_does_nothing(
    image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(image.rglob("*"))
    # these are the system's own
    for path in (install.UNIT, install.RULE):
        (image / path.lstrip("/")).parent.mkdir(parents=True)
    directories = sorted(set(image.rglob("*")) - set(before))
    run("--install-service", root=image, capsys=capsys)
    status, out, _ = run("--uninstall-service", root=image, capsys=capsys)
    assert status == 0
    assert {line.split()[1] for line in out.splitlines()} == {f"{image}{path}" for path in PLACES}
    left = {path for path in image.rglob("*") if path not in {*before, *directories}}
    assert {path for path in left if not path.is_dir()} == set()
    assert not {path for path in left if path.name in {"vcpud", "man8"}}
    assert run("--uninstall-service", root=image, capsys=capsys) == (0, "", "")


def test_a_configuration_that_was_changed_is_neither_overwritten_nor_removed(
    image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = image / DEFAULT_PATH.lstrip("/")
    settings.parent.mkdir(parents=True)
    settings.write_text("eject_gate = true\n")
    run("--install-service", root=image, capsys=capsys)
    status, out, _ = run("--uninstall-service", root=image, capsys=capsys)
    assert (status, out.splitlines()[-1]) == (0, f"kept {settings}: it was changed here")
    assert files(image) == {DEFAULT_PATH: "eject_gate = true\n"}


def test_all_that_is_missing_is_told_at_once_and_nothing_is_written(
    image: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (image / "usr/bin/systemctl").unlink()
    (image / "opt/vcpud/bin/vcpud").unlink()
    foreign = image / install.RULE.lstrip("/")
    foreign.parent.mkdir(parents=True)
    foreign.write_text("# an administrator's\n")
    package = image / "usr/lib/systemd/system/vcpud.service"
    package.parent.mkdir(parents=True)
    package.touch()
    monkeypatch.setattr(sys, "base_prefix", "/root/.local/python")
    monkeypatch.setitem(sys.modules, "pyudev", None)
    status, out, err = run("--install-service", root=image, capsys=capsys)
    assert (status, out) == (1, "")
    for what in ("systemctl is missing", "/opt/vcpud/bin/vcpud is not in", f"{install.RULE} is there", "a package has"):
        assert what in err
    for what in ("cannot import pyudev", "/root/.local/python is hidden from the service, as all of /root is"):
        assert what in err
    assert len(re.findall(r"^  - ", err, re.MULTILINE)) == 6, err
    assert set(files(image)) == {install.RULE, "/usr/lib/systemd/system/vcpud.service"}


def test_files_that_are_not_ours_are_left_where_they_are(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in PLACES:
        (image / path.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
        (image / path.lstrip("/")).write_text("an administrator's\n")
    assert run("--uninstall-service", root=image, capsys=capsys) == (0, "", "")
    assert set(files(image)) == set(PLACES)


def test_a_root_that_is_none_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("--install-service", "--uninstall-service"):
        status, _, err = run(option, root=tmp_path / "nowhere", capsys=capsys)
        assert (status, "is no directory" in err) == (1, True), err


def test_a_vcpud_of_a_package_says_that_its_service_is_there(
    image: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install, "files", lambda package: image)  # packages leave them out
    status, _, err = run("--install-service", root=image, capsys=capsys)
    assert (status, "came as a package" in err) == (1, True), err
