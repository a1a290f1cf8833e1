# SPDX-License-Identifier: Apache-2.0
"""vcpud as a service without a package: what is put below a root, what is missing, and what is taken away."""

from __future__ import annotations

import hashlib
import os
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


def reads_only(monkeypatch: pytest.MonkeyPatch, *folders: Path) -> None:
    """Have these directories, and all below them, be read-only: for root, too, whom no mode of theirs keeps out."""
    access = os.access
    monkeypatch.setattr(
        os,
        "access",
        lambda path, mode: not any(Path(path).is_relative_to(folder) for folder in folders) and access(path, mode),
    )


def test_where_usr_is_read_only_the_page_is_left_out_which_is_told_once(
    image: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    reads_only(monkeypatch, image / "usr")
    status, out, err = run("--install-service", root=image, capsys=capsys)
    assert (status, err) == (0, "")
    assert f"left out {image}{install.PAGE}: {image}/usr cannot be written to" in out
    assert set(files(image)) == {*PLACES} - {install.PAGE}
    assert run("--install-service", root=image, capsys=capsys) == (0, "", "")
    assert run("--uninstall-service", root=image, capsys=capsys)[0] == 0
    assert files(image) == {}


def test_where_anything_else_cannot_be_written_all_of_that_is_told_and_nothing_is_written(
    image: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (image / "etc/systemd/system").mkdir(parents=True)
    (image / "etc/udev").touch()
    reads_only(monkeypatch, image / "etc/systemd")
    status, out, err = run("--install-service", root=image, capsys=capsys)
    assert (status, out) == (1, "")
    assert f"{image}/etc/systemd/system cannot be written to" in err
    assert f"{image}/etc/udev is no directory" in err
    assert files(image) == {}


def test_a_link_that_leads_out_of_an_image_is_not_followed(
    image: Path, capsys: pytest.CaptureFixture[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (image / "etc").mkdir()
    (image / "etc/udev").symlink_to(outside)
    status, out, err = run("--install-service", root=image, capsys=capsys)
    assert (status, out) == (1, "")
    assert f"{image}/etc/udev leads out of {image}" in err
    (outside / "rules.d").mkdir()
    (outside / "rules.d/60-vcpud.rules").write_text("# Put here by vcpud --install-service\n")
    assert run("--uninstall-service", root=image, capsys=capsys) == (0, "", "")
    assert (outside / "rules.d/60-vcpud.rules").exists()


def test_an_image_may_be_called_by_a_link(
    image: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    link = image.parent / f"{image.name}-link"
    link.symlink_to(image)
    monkeypatch.setattr(sys, "prefix", f"{link}/opt/vcpud")
    monkeypatch.setattr(sysconfig, "get_path", lambda name: f"{link}/opt/vcpud/bin")
    assert run("--install-service", root=link, capsys=capsys)[0] == 0
    assert "ExecStart=/opt/vcpud/bin/vcpud" in files(image)[install.UNIT]


def test_no_root_is_not_the_directory_that_one_happens_to_be_in(capsys: pytest.CaptureFixture[str]) -> None:
    """It comes of a variable that is not set; below "/" it would be the system that runs."""
    for option in ("--install-service", "--uninstall-service"):
        assert main([option, "--root", ""]) == 1
        assert "--root" in capsys.readouterr().err


@pytest.mark.parametrize("there", range(1, len(PLACES)))
def test_what_an_install_has_left_that_was_cut_short_is_taken_away_whole(
    image: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, there: int
) -> None:
    replace = os.replace

    def cut_short(source: str, target: Path) -> None:
        if len(files(image)) == there:
            raise OSError("no space left")
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", cut_short)
        assert run("--install-service", root=image, capsys=capsys)[0] == 1
    assert len(files(image)) == there
    assert run("--uninstall-service", root=image, capsys=capsys)[0] == 0
    assert files(image) == {}


def test_a_vcpud_of_a_package_says_that_its_service_is_there(
    image: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install, "files", lambda package: image)  # packages leave them out
    status, _, err = run("--install-service", root=image, capsys=capsys)
    assert (status, "came as a package" in err) == (1, True), err


# --- the configuration of another version -----------------------------------------------------------------------------


OLDER = "# as an older version has it\n"


@pytest.fixture
def older(image: Path) -> Path:
    """An image in which an older version has put its service, with another configuration. Return that one's place."""
    assert main(["--install-service", "--root", str(image)]) == 0
    unit, settings = image / install.UNIT.lstrip("/"), image / DEFAULT_PATH.lstrip("/")
    digests = [hashlib.sha256(text.encode()).hexdigest() for text in (settings.read_text(), OLDER)]
    assert digests[0] in unit.read_text().partition("\n")[0]
    unit.write_text(unit.read_text().replace(digests[0], digests[1]))
    settings.write_text(OLDER)
    return settings


def test_a_configuration_that_nobody_has_changed_gives_way_to_that_of_a_newer_version(
    image: Path, older: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    status, out, _ = run("--install-service", root=image, capsys=capsys)
    assert (status, [line.split()[1] for line in out.splitlines()]) == (
        0,
        [str(older), f"{image}{install.UNIT}"],
    )
    assert older.read_text() == (PACKAGING / "vcpud.conf").read_text()
    assert run("--install-service", root=image, capsys=capsys) == (0, "", "")


def test_uninstalling_removes_the_configuration_of_an_older_version_if_nobody_has_changed_it(
    image: Path, older: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    status, out, _ = run("--uninstall-service", root=image, capsys=capsys)
    assert (status, "kept" in out) == (0, False)
    assert not older.exists()


@pytest.mark.parametrize("there", range(1, len(PLACES)))
def test_an_uninstall_that_was_cut_short_is_finished_by_the_next_one(
    image: Path, older: Path, monkeypatch: pytest.MonkeyPatch, there: int, capsys: pytest.CaptureFixture[str]
) -> None:
    unlink = Path.unlink

    def cut_short(path: Path) -> None:
        if len(files(image)) == there:
            raise OSError("an error of the disk")
        unlink(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", cut_short)
        assert run("--uninstall-service", root=image, capsys=capsys)[0] == 1
    assert len(files(image)) == there
    status, out, _ = run("--uninstall-service", root=image, capsys=capsys)
    assert (status, "kept" in out) == (0, False)
    assert files(image) == {}


def test_a_changed_configuration_stays_when_a_newer_version_comes_and_when_that_goes(
    image: Path, older: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    older.write_bytes(b"log_level = 'debug' # \xff\n")  # what is no UTF-8 is compared as well
    capsys.readouterr()
    assert run("--install-service", root=image, capsys=capsys) == (0, "", "")
    older.write_text(OLDER)  # it was changed back
    assert str(older) in run("--install-service", root=image, capsys=capsys)[1]
    older.write_text("log_level = 'debug'\n")
    assert run("--install-service", root=image, capsys=capsys) == (0, "", "")
    assert run("--uninstall-service", root=image, capsys=capsys)[1].splitlines()[-1].startswith(f"kept {older}")
    assert older.read_text() == "log_level = 'debug'\n"


def test_uninstalling_leaves_the_configuration_to_a_package_that_has_come_meanwhile(
    image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("--install-service", root=image, capsys=capsys)
    package = image / "usr/lib/systemd/system/vcpud.service"
    package.parent.mkdir(parents=True)
    package.touch()
    status, out, _ = run("--uninstall-service", root=image, capsys=capsys)
    assert (status, DEFAULT_PATH in out) == (0, False)
    assert set(files(image)) == {DEFAULT_PATH, "/usr/lib/systemd/system/vcpud.service"}
