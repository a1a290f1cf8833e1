# SPDX-License-Identifier: Apache-2.0
"""Metrics as a file: whole or not there, never silently old, and gone when nobody writes it any more."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from kit.until import until
from vcpu_host.errors import UsageError
from vcpu_host.service.metrics import Metrics
from vcpu_host.service.textfile import Textfile, textfile


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(["web1"], version="9.8.7")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return textfile(str(tmp_path / "vcpuctl.prom"))


def _names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


def _text(path: Path) -> str:
    return path.read_text()


@pytest.fixture
def old(file: Path) -> Path:
    """The file, as an earlier service has left it that was killed."""
    file.write_text("old")
    return file


def _put_a_directory_in_place_of(path: Path) -> None:
    os.unlink(path)
    os.mkdir(path)


def _failures(metrics: Metrics) -> float:
    (line,) = (
        line
        for line in metrics.exposed()[0].decode().splitlines()
        if line.startswith('vcpuctl_exposition_errors_total{way="textfile"}')
    )
    return float(line.split()[1])


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Have the disk fail with this errno from now on; 0: it works."""
    replace, says = os.replace, [0]

    def replaced(old: Path, new: Path) -> None:
        if says[0]:
            raise OSError(says[0], os.strerror(says[0]))
        replace(old, new)

    monkeypatch.setattr(os, "replace", replaced)

    def fails(number: int) -> None:
        says[0] = number

    return fails


@pytest.mark.parametrize("name", ["vcpuctl.prom", "/var/lib/x/vcpuctl.txt", "/x/vcpuctl", "", "/x/prom"])
def test_a_name_that_node_exporter_would_not_read_is_refused(name: str) -> None:
    with pytest.raises(UsageError) as error:
        textfile(name)
    assert error.value.reason.code == "bad-metrics"


def test_the_file_is_replaced_whole_and_everybody_may_read_it(metrics: Metrics, file: Path) -> None:
    before = os.umask(0o077)
    try:
        Textfile(metrics, file).write()
        first = file.stat()
        Textfile(metrics, file).write()
    finally:
        os.umask(before)
    assert stat.S_IMODE(first.st_mode) == stat.S_IMODE(file.stat().st_mode) == 0o644
    assert file.read_bytes() == metrics.exposed()[0]
    assert _names(file.parent) == [file.name]
    assert file.stat().st_ino != first.st_ino, "whoever reads the old file reads all of it"


@pytest.mark.parametrize("left", ["half a file", "a link"])
def test_what_lies_where_it_is_made_is_replaced_and_no_link_is_followed(
    metrics: Metrics, file: Path, left: str
) -> None:
    elsewhere, temporary = file.parent / "elsewhere", file.parent / ".vcpuctl.prom.new"
    elsewhere.write_text("kept")
    if left == "a link":
        temporary.symlink_to(elsewhere)
    else:
        temporary.write_text("half" * 100_000)
    Textfile(metrics, file).write()
    assert (file.read_bytes(), elsewhere.read_text()) == (metrics.exposed()[0], "kept")
    assert _names(file.parent) == ["elsewhere", file.name]


async def test_it_is_there_from_the_beginning_and_gone_at_the_end_however_that_comes(
    metrics: Metrics, old: Path
) -> None:
    async with Textfile(metrics, old):
        assert _text(old) == metrics.exposed()[0].decode()
    assert _names(old.parent) == []
    with pytest.raises(ZeroDivisionError):
        async with Textfile(metrics, old):
            raise ZeroDivisionError
    assert _names(old.parent) == []


async def test_somebody_who_removes_it_at_the_end_is_no_error_and_one_that_cannot_be_removed_is_told(
    metrics: Metrics, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with Textfile(metrics, file):
        os.unlink(file)
    assert capsys.readouterr().err == ""
    async with Textfile(metrics, file):
        _put_a_directory_in_place_of(file)
    assert capsys.readouterr().err.startswith(f"vcpuctl: metrics: {file} stays, and is old: ")


@pytest.mark.parametrize(
    ("name", "hint"), [("nowhere/x.prom", "a directory that is there"), ("no-directory/x.prom", "that is there")]
)
async def test_a_place_that_is_not_there_is_refused_at_the_start_with_what_to_do(
    metrics: Metrics, tmp_path: Path, name: str, hint: str
) -> None:
    (tmp_path / "no-directory").write_text("")
    with pytest.raises(UsageError) as refused:
        await Textfile(metrics, tmp_path / name).__aenter__()
    assert refused.value.reason.code == "bad-metrics"
    assert hint in refused.value.reason.hint
    assert _names(tmp_path) == ["no-directory"]


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS])
async def test_a_place_that_may_not_be_written_is_refused_at_the_start_and_the_line_of_a_drop_in_is_named(
    metrics: Metrics, file: Path, disk: Callable[[int], None], number: int
) -> None:
    disk(number)
    with pytest.raises(UsageError) as refused:
        await Textfile(metrics, file).__aenter__()
    assert f"ReadWritePaths={file.parent}" in refused.value.reason.hint
    assert os.strerror(number) in refused.value.reason.text
    assert _names(file.parent) == []


async def test_a_trouble_that_may_pass_ends_nothing_and_each_is_told_once_and_its_end_too(
    metrics: Metrics, old: Path, disk: Callable[[int], None], capsys: pytest.CaptureFixture[str]
) -> None:
    async def fails_again() -> None:
        before = _failures(metrics)
        await until(lambda: _failures(metrics) > before + 3)

    disk(errno.ENOSPC)
    async with Textfile(metrics, old, interval=0.001):
        await fails_again()
        assert (_text(old), _names(old.parent)) == ("old", [old.name])
        disk(errno.EROFS)
        await fails_again()
        disk(0)
        await until(lambda: _text(old) != "old")
        disk(errno.EROFS)
        await fails_again()
    told = [line.split(": ")[-1] for line in capsys.readouterr().err.splitlines()]
    assert [line.split(";")[0] for line in told] == [
        "No space left on device",
        "Read-only file system",
        f"{old} is written again",
        "Read-only file system",
    ]


async def test_it_is_written_again_as_soon_as_all_vms_were_looked_at(file: Path) -> None:
    metrics = Metrics(["web1", "web2"])
    async with Textfile(metrics, file, interval=1e6):
        assert "vcpuctl_vm_up{" not in _text(file)
        metrics.look_failed("web1", "qemu-gone")
        metrics.look_failed("web2", "qemu-gone")
        await until(lambda: 'vcpuctl_vm_up{vm="web2"} 0.0' in _text(file))
