# SPDX-License-Identifier: Apache-2.0
"""When the Debian packages are built anew, and when those that are there are what the tree gives."""

from __future__ import annotations

from pathlib import Path

import deb
import man
import pytest


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The dates of the builds so far, none of which does anything but leave three packages."""
    builds: list[str] = []

    def build(names: list[str]) -> None:
        assert names
        builds.append(man.source_date())
        for number in range(3):
            (tmp_path / f"{number}.deb").touch()

    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    monkeypatch.setattr(deb, "OUT", tmp_path)
    monkeypatch.setattr(deb, "inputs", lambda: ["LICENSE"])
    monkeypatch.setattr(deb, "build", build)
    return builds


def test_packages_of_another_date_are_not_those_that_the_tree_gives(
    built: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1000000000")
    assert (deb.main(), deb.main()) == (0, 0)
    assert built == ["1000000000"]
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    assert (deb.main(), deb.main()) == (0, 0)
    assert len(built) == 2


def test_a_build_that_was_ended_leaves_nothing_that_counts_as_built(
    built: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert deb.main() == 0
    build = deb.build

    def ended(names: list[str]) -> None:
        build(names)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(deb, "build", ended)
        patch.setattr(deb, "inputs", lambda: ["README.md"])
        with pytest.raises(KeyboardInterrupt):
            deb.main()
    assert deb.main() == 0, "the tree is as it was at first, and the packages are not"
    assert len(built) == 3
