# SPDX-License-Identifier: Apache-2.0
"""Which of systemd's unit files are in force, and what they say of CPUs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from vcpu_guest.kernel import units
from vcpu_guest.kernel.units import Units


def put(folder: Path, name: str, cpus: str = "", section: str = "Service") -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"[{section}]\n" + (f"CPUAffinity={cpus}\n" if cpus else ""))


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    """The administrator's directory and the distribution's."""
    both = tmp_path / "etc", tmp_path / "usr"
    for place in both:
        place.mkdir()
    return both


def found(places: tuple[Path, Path]) -> dict[str, set[int]]:
    return {name: set(cpus) for name, cpus in Units(tuple(map(str, places))).with_affinity().items()}


def test_a_file_hides_those_of_its_name_further_down(places: tuple[Path, Path]) -> None:
    put(places[0], "a.service", "1")
    put(places[1], "a.service", "2")
    put(places[1], "b.service", "3")
    assert found(places) == {"a.service": {1}, "b.service": {3}}


def test_a_masked_unit_has_no_cpus(places: tuple[Path, Path]) -> None:
    (places[0] / "a.service").symlink_to("/dev/null")
    put(places[1], "a.service", "2")
    assert found(places) == {}


def test_drop_ins_add_to_the_file_in_the_order_of_their_names_and_hide_each_other(places: tuple[Path, Path]) -> None:
    put(places[1], "a.service", "1")
    put(places[1], "a.service.d/20-b.conf", "2")
    put(places[0], "a.service.d/20-b.conf", "3")
    put(places[0], "a.service.d/10-a.conf", "4")
    put(places[0], "a.service.d/readme", "5")
    assert found(places) == {"a.service": {1, 3, 4}}


def test_drop_ins_of_a_kind_and_of_a_prefix_count_for_all_that_have_it(places: tuple[Path, Path]) -> None:
    put(places[1], "db-one.service")
    put(places[1], "db-two.service")
    put(places[1], "web.service")
    put(places[0], "db-.service.d/x.conf", "2")
    assert found(places) == {"db-one.service": {2}, "db-two.service": {2}}
    put(places[0], "service.d/x.conf", "7")
    assert found(places)["web.service"] == {7}


def test_an_instance_has_its_templates_cpus_and_its_own(places: tuple[Path, Path]) -> None:
    put(places[1], "job@.service", "1")
    put(places[0], "job@a.service.d/x.conf", "2")
    put(places[0], "job@.service.d/y.conf", "3")
    assert found(places) == {"job@.service": {1, 3}, "job@a.service": {1, 2, 3}}


def test_of_drop_ins_that_are_named_alike_the_more_special_one_counts(places: tuple[Path, Path]) -> None:
    put(places[1], "my-db.service")
    put(places[1], "service.d/10-cpu.conf", "1")
    assert found(places) == {"my-db.service": {1}}
    put(places[1], "my-.service.d/10-cpu.conf", "2")
    assert found(places) == {"my-db.service": {2}}
    put(places[1], "my-db.service.d/10-cpu.conf", "3")
    assert found(places) == {"my-db.service": {3}}


def test_of_directories_the_first_one_counts_before_a_more_special_name_and_a_kinds_own_come_last(
    places: tuple[Path, Path],
) -> None:
    put(places[1], "my-db.service")
    put(places[1], "my-db.service.d/10-cpu.conf", "3")
    put(places[0], "my-.service.d/10-cpu.conf", "2")
    assert found(places) == {"my-db.service": {2}}
    put(places[0], "service.d/10-cpu.conf", "1")
    assert found(places) == {"my-db.service": {2}}


def test_drop_ins_follow_the_order_of_their_names_wherever_they_lie(places: tuple[Path, Path]) -> None:
    put(places[1], "db.service", "1")
    put(places[1], "service.d/90-reset.conf")
    (places[1] / "service.d/90-reset.conf").write_text("[Service]\nCPUAffinity=\n")
    put(places[1], "db.service.d/10-cpu.conf", "3")
    assert found(places) == {}
    put(places[1], "db.service.d/95-cpu.conf", "4")
    assert found(places) == {"db.service": {4}}


@pytest.mark.parametrize("how", ["null", "empty"])
def test_a_drop_in_that_is_empty_masks_one_of_its_name(places: tuple[Path, Path], how: str) -> None:
    put(places[1], "db.service")
    put(places[1], "service.d/10-cpu.conf", "3")
    (places[0] / "db.service.d").mkdir()
    if how == "null":
        (places[0] / "db.service.d/10-cpu.conf").symlink_to("/dev/null")
    else:
        (places[0] / "db.service.d/10-cpu.conf").touch()
    assert found(places) == {}


def test_a_masked_unit_has_none_by_its_drop_ins_either(places: tuple[Path, Path]) -> None:
    (places[0] / "a.service").symlink_to("/dev/null")
    put(places[0], "a.service.d/x.conf", "2")
    assert found(places) == {}


def test_an_instance_has_the_drop_ins_of_its_prefixes(places: tuple[Path, Path]) -> None:
    put(places[1], "my-job@.service")
    put(places[1], "my-job@a.service.d/x.conf", "1")
    put(places[1], "my-@.service.d/y.conf", "2")
    put(places[1], "my-@a.service.d/z.conf", "3")
    assert found(places)["my-job@a.service"] == {1, 2, 3}


def test_instances_that_run_are_told_where_their_name_says_which_cpus_they_have(places: tuple[Path, Path]) -> None:
    put(places[1], "w@.service", "%i")
    put(places[1], "v@.service", "%I")
    put(places[1], "plain@.service", "1")
    put(places[1], "own@3.service.d/x.conf", "%i")
    put(places[1], "own@.service")
    asked: list[str] = []
    names = ["w@3.service", "w@2-4.service", "w@x.service", "v@6\\x2d7.service", "plain@9.service", "other.service"]

    def running() -> list[str]:
        asked.append("")
        return names

    units = Units(tuple(map(str, places)))
    assert {name: set(cpus) for name, cpus in units.with_affinity(running).items()} == {
        "w@3.service": {3},
        "w@2-4.service": {2, 3, 4},
        "v@6\\x2d7.service": {6, 7},
        "plain@.service": {1},
        "own@3.service": {3},
    }
    names.remove("w@3.service")
    assert "w@3.service" not in units.with_affinity(running)
    asked.clear()
    (places[1] / "w@.service").unlink()
    (places[1] / "v@.service").unlink()
    units.with_affinity(running)
    assert asked == []


@pytest.mark.parametrize("name", ["a.timer", "a.slice", "a.target", "a.conf", "a"])
def test_what_starts_no_process_is_no_such_unit(places: tuple[Path, Path], name: str) -> None:
    put(places[1], name, "1")
    assert found(places) == {}


@pytest.mark.parametrize(("name", "section"), [("a.socket", "Socket"), ("a.mount", "Mount"), ("a.swap", "Swap")])
def test_whatever_starts_processes_is(places: tuple[Path, Path], name: str, section: str) -> None:
    put(places[1], name, "1", section)
    assert found(places) == {name: {1}}


def test_what_cannot_be_read_stands_in_nobodys_way(places: tuple[Path, Path]) -> None:
    (places[0] / "gone.service").symlink_to(places[0] / "nowhere")
    (places[0] / "folder.service").mkdir()
    os.mkfifo(places[0] / "pipe.service")
    put(places[1], "a.service", "1")
    assert found((places[0], places[1])) == {"a.service": {1}}
    assert Units((str(places[0] / "none"),)).with_affinity() == {}


def test_files_are_read_again_only_when_a_directory_has_changed(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    put(places[1], "a.service", "1")
    read: list[str] = []
    real = units._read

    def reading(path: str) -> bytes:
        read.append(path)
        return real(path)

    monkeypatch.setattr(units, "_read", reading)
    one = Units(tuple(map(str, places)))
    assert one.with_affinity() == one.with_affinity()
    assert len(read) == 1
    os.utime(places[1], ns=(1, 1))
    one.with_affinity()
    assert len(read) == 2
