# SPDX-License-Identifier: Apache-2.0
"""Check that what documents and comments refer to is there. Part of the house rules (``rules.py``).

Read are Markdown files, and in Python sources the comments and docstrings, in other sources the comments. What is
checked in them:

- "promise N" names a heading of docs/promises.md, "ADR N" a page of docs/adr;
- nothing cites sections of a design document, since the repository has none;
- a path to a file or directory of the tree exists. It may be given from the root (``host/src/vcpu_host/``), from
  ``tests/`` (``unit/host/``), from a package (``core/view.py``) or from the place of the file that names it; a name
  without a directory is that of some file. A path with a pattern or a placeholder (``NAME.py``) is not checked;
- a test that is named exists, and is in the file that is named right before it, with a colon between them. It may be
  named by words of its name in italics;
- a dotted name that begins with one of our packages, or a room of one (``core.view``), is a module or a name in one.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath

PROMISES = "docs/promises.md"
ADRS = "docs/adr/"
#: Where short paths may begin.
PACKAGES = {
    "vcpu_host": "host/src/vcpu_host/",
    "vcpu_guest": "guest/src/vcpu_guest/",
    "vcpu_proto": "proto/src/vcpu_proto/",
    "kit": "tests/kit/",
}
ROOTS = ("", "tests/", "host/src/", "guest/src/", "proto/src/", *PACKAGES.values())
TOP = ("host", "guest", "proto", "packaging", "tests", "docs", "findings", "requirements")
#: Directories of ``tests/`` that documents name without it.
SHORT = ("unit", "contract", "component", "e2e", "kit")
#: Where what is made lies.
MADE = "build/"
#: Rooms that are called like a variable in examples: a dotted name that begins so may be anything.
_ALSO_VARIABLES = ("vm", "lab")
_PROMISE = re.compile(r"\b[Pp]romises?\s+(\d+(?:(?:,\s*|\s+(?:and|to)\s+)\d+)*)")
_DESIGN = re.compile(r"\b[Dd]esign,\s+(?:section|promise)|\bdesign\.md\b")
_ADR = re.compile(r"\bADRs?\s+(\d+)")
#: A path from the root, or from ``tests/``; what holds a placeholder or a pattern is left alone below.
_PATH = re.compile(rf"(?<![\w./$~{{<*-])(?:{'|'.join(TOP + SHORT)})/[\w.*?{{}}<>$,/-]*")
_QUOTED = re.compile(r"`+([^`\n]+)`+")
#: In backquotes: a path with a directory, or the name of a Python file or of a Markdown page.
_QUOTED_PATH = re.compile(r"[\w-]+(?:/[\w.-]+)+/?|[\w-]+\.(?:py|md)")
_FILE = re.compile(r"\.(?:py|md|sh|proto|toml|json|conf|service|rules|txt|in|inc|spec)$")
_TESTS_OF = re.compile(r"`+([\w/.-]+\.py)`+:\s+((?:(?:`+test_\w+`+|\*[^*\n|]+\*)(?:,\s*)?)+)")
_TEST_DEFINED = re.compile(r"^\s*(?:async )?def (test_\w+)", re.MULTILINE)
_TEST = re.compile(r"`+(test_\w+)`+|\*([^*\n|]+)\*")
_PATTERN = re.compile(r"[*?{}<>$]|\.\.\.|[A-Z]{2,}(?!\w*\.md)")
#: A module or a directory without an ending: ``core/view``.
_ROOM = re.compile(r"[a-z_]+(?:/\w+)+")
_DOTTED = re.compile(r"[a-z_]\w*(?:\.\w+)+")


@dataclass
class Tree:
    """The files that there are; ``files`` are paths from ``root``, with slashes."""

    root: Path
    files: frozenset[str]
    _names: dict[str, frozenset[str]] = field(default_factory=dict)

    @cached_property
    def directories(self) -> frozenset[str]:
        """Every directory that has a file below it."""
        return frozenset(str(parent) for name in self.files for parent in PurePosixPath(name).parents)

    @cached_property
    def last_names(self) -> frozenset[str]:
        """What the files are called, without directories."""
        return frozenset(name.rsplit("/", 1)[-1] for name in self.files)

    @cached_property
    def promises(self) -> frozenset[int]:
        """The numbers of the promises."""
        text = self.text(PROMISES) if PROMISES in self.files else ""
        return frozenset(int(number) for number in re.findall(r"^## (\d+)\. ", text, re.MULTILINE))

    @cached_property
    def adrs(self) -> frozenset[int]:
        """The numbers of the decisions."""
        pages = (name.removeprefix(ADRS) for name in self.files if name.startswith(ADRS))
        return frozenset(int(page[:4]) for page in pages if page[:4].isdigit())

    @cached_property
    def tests(self) -> frozenset[str]:
        """The names of all test functions."""
        files = (name for name in self.files if name.startswith("tests/") and name.endswith(".py"))
        return frozenset(test for name in files for test in _TEST_DEFINED.findall(self.text(name)))

    def text(self, name: str) -> str:
        """Return the text of a file."""
        return (self.root / name).read_text()

    def names(self, name: str) -> frozenset[str]:
        """Return what a Python file defines or imports, its classes' members included."""
        if name not in self._names:
            self._names[name] = frozenset(_defined(ast.parse(self.text(name))))
        return self._names[name]

    def has(self, path: str, of: str = "") -> bool:
        """Return whether a file or directory is there; ``of`` is the file that names it."""
        return bool(self.find(path, of))

    def find(self, path: str, of: str = "") -> list[str]:
        """Return the files and directories that a path may mean."""
        path = path.rstrip("/")
        if "/" not in path and path in self.last_names:
            return [name for name in self.files if name.rsplit("/", 1)[-1] == path]
        beside = [f"{parent}/" for parent in PurePosixPath(of).parents if str(parent) != "."] if of else []
        candidates = [f"{root}{path}" for root in (*ROOTS, *beside)]
        return [name for name in candidates if name in self.files or name in self.directories]


def check(tree: Tree, name: str, text: str) -> Iterator[str]:
    """Yield what the file ``name`` refers to that is not there, each complaint with its line."""
    for line, prose in _paragraphs(name, text):
        for complaint in dict.fromkeys(_check(tree, name, prose)):
            yield f"{name}:{line}: {complaint}"


def _check(tree: Tree, name: str, prose: str) -> Iterator[str]:
    for match in _PROMISE.finditer(prose):
        numbers = {int(number) for number in re.findall(r"\d+", match[1])}
        yield from (f"{PROMISES} has no promise {number}" for number in sorted(numbers - tree.promises))
    for cited in _DESIGN.findall(prose):
        yield f"says '{cited}': say the thing itself, or cite {PROMISES}, ARCHITECTURE.md or an ADR"
    for match in _ADR.finditer(prose):
        if int(match[1]) not in tree.adrs:
            yield f"there is no ADR {match[1]}"
    for path in _paths(prose):
        if not tree.has(path, name):
            yield f"names {path}, which is not there"
    for quoted in _QUOTED.findall(prose):
        yield from _check_quoted(tree, name, quoted)
    for match in _TESTS_OF.finditer(prose):
        yield from _check_tests_of(tree, match[1], match[2])


def _paths(prose: str) -> Iterator[str]:
    """Yield the paths in running words and in backquotes that are complete: without placeholders and patterns."""
    for match in _PATH.finditer(prose):
        path = match[0].rstrip(".,")
        if not _PATTERN.search(path) and (_FILE.search(path) or path.endswith("/")):
            yield path
    for quoted in _QUOTED.findall(prose):
        path = quoted.split("::")[0]
        if not _QUOTED_PATH.fullmatch(path) or _PATTERN.search(path) or path.startswith(MADE):
            continue
        if _FILE.search(path) or path.split("/")[0] in (*TOP, *SHORT):
            yield path


def _check_quoted(tree: Tree, name: str, quoted: str) -> Iterator[str]:
    path, _, test = quoted.partition("::")
    if test:
        if not any(test in tree.names(found) for found in tree.find(path, name)):
            yield f"names {quoted}, but {path} has no such test"
    elif re.fullmatch(r"test_\w+", quoted):
        modules = {PurePosixPath(file).stem for file in tree.files}
        if quoted not in tree.tests and quoted not in modules:
            yield f"names the test {quoted}, which is not there"
    elif _DOTTED.fullmatch(quoted) and not _FILE.search(quoted):
        yield from _check_dotted(tree, name, quoted)
    elif _ROOM.fullmatch(quoted) and tree.has(quoted.split("/", maxsplit=1)[0], name):
        found = tree.has(quoted, name) or tree.has(f"{quoted}.py", name)
        yield from () if found else (f"names {quoted}, which is no module and no directory",)


def _check_tests_of(tree: Tree, path: str, tests: str) -> Iterator[str]:
    """Check a list of tests that follows the name of their file; words in italics are a part of a test's name."""
    files = [file for file in tree.find(path) if file.endswith(".py")]
    for whole, words in _TEST.findall(tests):
        wanted = whole or re.sub(r"\W+", "_", words.strip())
        if files and not any(wanted in test for file in files for test in tree.names(file)):
            yield f"says that {path} has the test {whole or words}, which it has not"


def _check_dotted(tree: Tree, name: str, dotted: str) -> Iterator[str]:
    """Check a name that begins with a package of ours or with a room of one."""
    parts = dotted.split(".")
    if parts[0] in PACKAGES:
        starts = [PACKAGES[parts[0]]]
        parts = parts[1:]
    else:
        # a room: in the package of the file itself, else in any
        own = [root for root in PACKAGES.values() if name.startswith(root)]
        starts = [root for root in own or PACKAGES.values() if f"{root}{parts[0]}" in tree.directories]
        starts = [] if parts[0] in _ALSO_VARIABLES else starts
    if starts and not any(_resolves(tree, start, parts) for start in starts):
        yield f"names {dotted}, which is no module and no name in one"


def _resolves(tree: Tree, place: str, parts: list[str]) -> bool:
    for index, part in enumerate(parts):
        if f"{place}{part}" in tree.directories:
            place = f"{place}{part}/"
            continue
        module = f"{place}{part}.py"
        if module in tree.files:
            rest = parts[index + 1 :]
            return not rest or rest[0] in tree.names(module)
        init = f"{place}__init__.py"
        return init in tree.files and part in tree.names(init)
    return True


def _defined(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.Name(id=name, ctx=ast.Store()):
                yield name
            case ast.alias(name=name, asname=asname):
                yield asname or name


def _paragraphs(name: str, text: str) -> Iterable[tuple[int, str]]:
    """Return the prose of a file in pieces, each with the line that it begins on."""
    if name.endswith(".md"):
        return _of_markdown(text)
    if name.endswith((".py", ".pyi")):
        return _of_python(text)
    lines = ((number, line.partition("#")[2]) for number, line in enumerate(text.splitlines(), 1))
    return _joined(lines)


def _of_markdown(text: str) -> Iterator[tuple[int, str]]:
    fenced = False

    def lines() -> Iterator[tuple[int, str]]:
        nonlocal fenced
        for number, line in enumerate(text.splitlines(), 1):
            if line.lstrip().startswith("```"):
                fenced = not fenced
            # a row of a table, and an item of a list, stand for themselves
            if line.startswith(("|", "- ")):
                yield number, ""
            yield number, "" if fenced else line

    return _joined(lines())


def _of_python(text: str) -> Iterator[tuple[int, str]]:
    comments = (
        (token.start[0], token.string.lstrip("#: "))
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type == tokenize.COMMENT
    )
    yield from _joined(comments)
    for first, docstring in _docstrings(ast.parse(text)):
        yield from _joined((first + number, line) for number, line in enumerate(docstring.splitlines()))


def _docstrings(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[tuple[int, str]]:
    if docstring := ast.get_docstring(node):
        yield node.body[0].lineno, docstring
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _docstrings(child)


def _joined(lines: Iterable[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """Join lines that follow each other, and are not empty, to paragraphs: what is referred to may be broken off."""
    begun, last, words = 0, -1, ""
    for number, line in lines:
        if words and (not line.strip() or number > last + 1):
            yield begun, words
            words = ""
        if line.strip():
            begun = begun if words else number
            words = f"{words}\n{line.strip()}" if words else line.strip()
        last = number
    if words:
        yield begun, words
