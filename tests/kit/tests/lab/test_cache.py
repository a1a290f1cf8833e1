# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from kit.lab.cache import Cache, default_root, digest, digest_tree
from kit.lab.errors import CommandError


def _build(folder: Path) -> None:
    (folder / "file").write_text("made")


def test_an_entry_is_built_once_and_found_again(tmp_path: Path) -> None:
    built: list[Path] = []

    def build(folder: Path) -> None:
        built.append(folder)
        _build(folder)

    cache = Cache(tmp_path)
    with cache.entry("kind", "key", build) as first:
        assert (first.path / "file").read_text() == "made"
    with cache.entry("kind", "key", build) as second:
        assert second == first
    assert len(built) == 1


def test_of_two_that_race_one_builds_and_both_get_it(tmp_path: Path) -> None:
    both_started = threading.Barrier(2)
    second_build = threading.Event()
    built: list[Path] = []
    seen: list[str] = []

    def build(folder: Path) -> None:
        built.append(folder)
        if len(built) > 1:
            second_build.set()
        second_build.wait(0.5)  # time for the other to build too, if nothing holds it
        _build(folder)

    def use() -> None:
        both_started.wait(10)
        with Cache(tmp_path).entry("kind", "key", build) as entry:
            seen.append(entry.build_id)

    threads = [threading.Thread(target=use) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(built) == 1
    assert len(seen) == 2
    assert len(set(seen)) == 1


def test_a_build_that_fails_leaves_nothing_and_the_next_may_succeed(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        _build(folder)
        raise CommandError("no")

    cache = Cache(tmp_path)
    with pytest.raises(CommandError), cache.entry("kind", "key", fail):
        pass
    assert [path for path in (tmp_path / "kind").iterdir() if path.is_dir()] == []
    with cache.entry("kind", "key", _build) as entry:
        assert (entry.path / "file").exists()


def test_the_rest_of_a_killed_build_goes_with_the_next(tmp_path: Path) -> None:
    (tmp_path / "kind" / ".key.rest").mkdir(parents=True)
    with Cache(tmp_path).entry("kind", "key", _build) as entry:
        assert [path.name for path in entry.path.parent.iterdir() if path.is_dir()] == ["key"]


def test_a_new_build_drops_the_older_ones_of_its_kind_but_not_one_in_use(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    with cache.entry("kind", "old", _build) as old, cache.entry("other", "old", _build) as other:
        pass
    with cache.entry("kind", "held", _build) as held, cache.entry("kind", "new", _build):
        assert not old.path.exists()
        assert held.path.exists()
        assert other.path.exists()


def test_pruning_spares_what_is_in_use_or_was_used_lately(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    with cache.entry("a", "key", _build) as idle, cache.entry("b", "key", _build) as fresh:
        pass
    os.utime(idle.path, (0, 0))
    with cache.entry("c", "key", _build) as held:
        assert cache.prune(3600.0) == [idle.path]
        assert cache.prune() == [fresh.path]
        assert held.path.exists()


def test_a_rebuilt_entry_is_another_build(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    with cache.entry("kind", "key", _build) as first:
        pass
    cache.prune()
    with cache.entry("kind", "key", _build) as second:
        assert second.build_id != first.build_id


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("VCPU_LAB_CACHE", raising=False)
    assert default_root() == tmp_path / "vcpuctl-lab"
    monkeypatch.setenv("VCPU_LAB_CACHE", str(tmp_path / "named"))
    assert default_root() == tmp_path / "named"


def test_a_digest_changes_with_names_modes_and_contents(tmp_path: Path) -> None:
    file = tmp_path / "tree" / "file"
    file.parent.mkdir()
    file.write_text("one")
    seen = {digest_tree(file.parent)}
    file.write_text("two")
    seen.add(digest_tree(file.parent))
    file.chmod(0o755)
    seen.add(digest_tree(file.parent))
    file.rename(file.with_name("other"))
    seen.add(digest_tree(file.parent))
    assert len(seen) == 4
    assert digest("a", 1) == digest("a", 1) != digest("a", 2)
