# SPDX-License-Identifier: Apache-2.0
"""What documents and comments refer to is there, and what is not there is seen."""

from __future__ import annotations

from pathlib import Path

import pytest
import references

FILES = {
    "docs/promises.md": "# Promises\n\n## 1. One\n\n## 2. Two\n",
    "docs/adr/0007-why.md": "# 7. Why\n",
    "docs/a.md": "",
    "host/src/vcpu_host/core/view.py": "def join(): ...\nclass VmView:\n    slots = ()\n",
    "guest/src/vcpu_guest/cpus/writer.py": "class Writer: ...\n",
    "tests/unit/host/core/test_view.py": "def test_a_slot_is_told_by_its_name(): ...\n",
    "tests/component/test_end.py": "async def test_the_end_is_seen(): ...\n",
}


@pytest.fixture
def tree(tmp_path: Path) -> references.Tree:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return references.Tree(tmp_path, frozenset(FILES))


GOOD = [
    "promise 1",
    "promises 1 and 2",
    "ADR 7",
    "ADR 0007",
    "tests/component/test_end.py",
    "`component/test_end.py`",
    "`test_end.py`",
    "`core/view.py`",
    "`host/src/vcpu_host/core/`",
    "`core/view`",
    "`hw/core`",
    "``core.view``",
    "``core.view.join``",
    "`vcpu_host.core.view.VmView.slots`",
    "`tests/unit/host/core/test_view.py::test_a_slot_is_told_by_its_name`",
    "`test_the_end_is_seen`",
    "`component/test_end.py`: *the end is seen*",
    "`component/test_end.py`: `test_the_end_is_seen`",
    # of other projects, made, or with a placeholder
    "`kernel/cpu.c`",
    "`build/bench.json`",
    "host/src/NAME.py",
    "`tests/kit/*.py`",
    "`list -o json`",
    "`subprocess.run`",
]
BAD = [
    ("promise 3", "no promise 3"),
    ("promises 1, 2 and 9", "no promise 9"),
    ("as the design, section 2, says", "design, section"),
    ("ADR 8", "no ADR 8"),
    ("tests/component/test_start.py", "not there"),
    ("`component/test_start.py`", "not there"),
    ("`test_start.py`", "not there"),
    ("`core/views.py`", "not there"),
    ("`core/views`", "no module"),
    ("`core.views`", "no module"),
    ("``core.view.joined``", "no module"),
    ("`vcpu_guest.cpus.switch`", "no module"),
    ("`component/test_end.py::test_the_start_is_seen`", "no such test"),
    ("`test_the_start_is_seen`", "not there"),
    ("`component/test_end.py`: *the start is seen*", "has not"),
    ("`component/test_end.py`: `test_the_end_is_seen`, `test_a_slot_is_told_by_its_name`", "has not"),
]


@pytest.mark.parametrize("text", GOOD)
def test_what_is_there_draws_no_complaint(tree: references.Tree, text: str) -> None:
    assert list(references.check(tree, "docs/b.md", f"# Page\n\nSee {text}.\n")) == []
    assert list(references.check(tree, "host/src/vcpu_host/core/b.py", f'"""See {text}."""\n# {text}\n')) == []


@pytest.mark.parametrize(("text", "words"), BAD)
def test_what_is_not_there_is_seen_in_documents_docstrings_and_comments(
    tree: references.Tree, text: str, words: str
) -> None:
    for name, whole, line in (
        ("docs/b.md", f"# Page\n\nSee {text}.\n", 3),
        ("docs/b.md", f"- a\n| {text} |\n- b\n", 2),
        ("tests/b.py", f'x = 1\n\n\ndef f() -> None:\n    """See {text}."""\n', 5),
        ("tests/b.py", f"x = 1\n# {text}\n", 2),
        ("Makefile", f"x:\n\ty # {text}\n", 2),
    ):
        (found,) = references.check(tree, name, whole)
        assert found.startswith(f"{name}:{line}: "), found
        assert words in found


def test_a_reference_that_is_broken_over_two_lines_is_read_as_one(tree: references.Tree) -> None:
    (found,) = references.check(tree, "tests/b.py", "# see promise\n# 3\n")
    assert "no promise 3" in found


def test_code_and_what_is_quoted_as_such_are_not_prose(tree: references.Tree) -> None:
    assert list(references.check(tree, "tests/b.py", 'x = "tests/none.py, promise 9"\n')) == []
    assert list(references.check(tree, "docs/b.md", "```\ntests/none.py, promise 9\n```\n")) == []


def test_a_page_may_name_what_lies_beside_it(tree: references.Tree) -> None:
    assert list(references.check(tree, "docs/b.md", "`a.md` and `adr/0007-why.md`\n")) == []
