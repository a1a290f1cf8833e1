# SPDX-License-Identifier: Apache-2.0
"""House rules that neither ruff, mypy nor import-linter can see. Prints what breaks them; part of `make check`.

The rules: every source begins with its licence; no module is longer than 400 lines, and no function is longer than 60
or more complex than ruff allows without a comment that says why; in the guest only kernel/sysfs.py and
platforms/rtas.py name paths under /sys; outside the platform modules nothing depends on the name of an architecture, a
machine or an event; docstrings of functions say what these do; the host's core has no device id and no QOM path of
QEMU's; in the host's core/operation an object's attributes are written by its own methods alone; tests neither sleep
nor skip, nor judge by the time that something took; all versions agree; no file names the host of a package index,
since which one is used is the machine's business (docs/adr/0002-pins-without-registry-names.md); relative links in
documents lead somewhere, and so do the promises, decisions, paths and tests that documents and comments name
(``references.py``).
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import references

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_LINES = 400
#: Lines of a function, without its docstring.
MAX_FUNCTION = 60
#: What a longer function has in its head, followed by the reason.
LONG = re.compile(r"# long: \w")
#: ruff is told to let a complex function be, without being told why.
COMPLEX = re.compile(r"# noqa:[^#]*\bC901\b(?! - \w)")
#: What only an adapter to QEMU makes or takes apart: ids of devices and paths of objects. Our packages' names are fine.
CORE = "host/src/vcpu_host/core/"
QEMU_WORDS = re.compile(r"\bvcpu-(?!guest\b|host\b|proto\b)|/machine/|peripheral")
#: Where what is known changes by methods that are named after what happened, and by nothing else.
OPERATION = CORE + "operation/"
LICENCE = "SPDX-License-Identifier: Apache-2.0"
PARTS = ("proto", "host", "guest")
SHIPPED = tuple(f"{part}/src/" for part in PARTS)
#: Generated code, and files that go into guests as they are.
GENERATED = ("proto/src/vcpu_proto/v1/agent_pb2", "proto/src/vcpu_proto/host/v1/host_pb2", "tests/kit/lab/guests/")
SOURCES = (".py", ".pyi", ".sh", ".proto", ".c", ".service", ".rules", ".conf", ".toml")
#: The only modules of the guest that open files under /sys.
SYSFS_USERS = ("guest/src/vcpu_guest/kernel/sysfs.py", "guest/src/vcpu_guest/platforms/rtas.py")
#: Where what differs between machines lives, and what nothing else may compare with words.
PLATFORMS = ("host/src/vcpu_host/core/platforms/", "guest/src/vcpu_guest/platforms/")
PLATFORM_FACTS = {"arch", "machine", "action", "event", "event_source"}
#: Names of architectures, machine types and a platform's own events, whatever they are compared with.
PLATFORM_WORDS = re.compile(
    r"(x86|i[3-6]86|amd64|ppc|powerpc|s390|aarch64|arm64|loongarch|riscv|pseries|spapr|q35|pc-|microvm)[\w.+-]*"
    r"|ACPI_DEVICE_OST|DEVICE_UNPLUG_GUEST_ERROR"
)
#: What QEMU's events are called is known here, and nowhere else.
PLATFORM_WORDS_KNOWN = (
    "host/src/vcpu_host/qmp/events.py",
    # The table of codes: some are called after the platform that they are about.
    "host/src/vcpu_host/core/codes.py",
)
# Put together here, so that this file does not break its own rule.
INDEX_HOSTS = tuple(
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("registry", "npmjs", "org"),
        ("deb", "debian", "org"),
        ("security", "debian", "org"),
        ("ftp", "debian", "org"),
    )
)
UNFINISHED = re.compile(rf"\b({'|'.join(('TO' + 'DO', 'FIX' + 'ME', 'X' + 'XX'))})\b")
DODGES = re.compile(r"\btime\.sleep\(|\bpytest\.(skip|xfail|importorskip)\b|\bmark\.(skip|skipif|xfail)\b")
#: An elapsed time that has to be short: a busy machine would break it.
TIMED = re.compile(r"\bassert\b.*\b(?:monotonic|perf_counter|process_time|time)\(\) - .*<")
#: What a function's docstring does not begin with: it says what the function does ("Return ...", "Raise ...").
NOUNS = re.compile(
    r"(The|A|An|All|Every|Each|No|Both|Some|Any|Whether|What|How|Why|Which|Who|Whoever|When|Where|That|Those|This|These"
    r"|Its|One|Two|Seconds|Bytes|It|There|Nothing|Anything|True|False|None)\b"
)
LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def tracked(root: Path) -> list[Path]:
    """Every file of the tree that git knows or would add, and that is there."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split("\0")
    return sorted(root / name for name in listed if name and (root / name).is_file())


def check_rooms(name: str, text: str) -> Iterator[str]:
    """What a module of the product breaks that holds in its room alone."""
    if name.startswith(SHIPPED):
        yield from (f"{name}:{line}: say what the function does: Return, Raise" for line in noun_docstrings(text))
    if name.startswith(CORE):
        yield from (f"{name}:{line}: QEMU's ids and paths are the adapter's business" for line in qemu_words(text))
    if name.startswith(OPERATION):
        yield from (
            f"{name}:{line}: writes an attribute of another object: give that a method named after what happened"
            for line in foreign_writes(text)
        )


def check_source(name: str, text: str) -> Iterator[str]:
    """What one source file breaks; `name` is its path from the root of the tree."""
    if name.startswith(GENERATED) or not text:
        return
    if LICENCE not in "\n".join(text.splitlines()[:3]):
        yield f"{name}: does not begin with '{LICENCE}'"
    if match := UNFINISHED.search(text):
        yield f"{name}: says {match[0]}: finish it or say why it is so"
    if not name.endswith(".py"):
        return
    if (lines := len(text.splitlines())) > MAX_LINES:
        yield f"{name}: {lines} lines, more than {MAX_LINES}: it has more than one reason to change"
    yield from (f"{name}:{line}: {what}" for line, what in functions(text))
    yield from check_rooms(name, text)
    if match := DODGES.search(text):
        yield f"{name}: {match[0].rstrip('(')}: wait on a condition with a deadline, and let every test run"
    if TIMED.search(text):
        yield f"{name}: judges by the time that something took: count its work (tests/kit/sim/effort.py)"
    if name.startswith("guest/src/") and name not in SYSFS_USERS:
        yield from (f"{name}:{line}: names a path under /sys: let kernel/sysfs.py open it" for line in sys_paths(text))
    if name.startswith(("host/src/", "guest/src/")) and not name.startswith(PLATFORMS):
        yield from (
            f"{name}:{line}: depends on the name of a machine or an event: that is a platform module's business"
            for line in sorted({*platform_conditionals(text), *platform_words(name, text)})
        )


def qemu_words(text: str) -> Iterator[int]:
    """The lines on which a string, docstrings apart, has a word of QEMU's ids or paths."""
    tree = ast.parse(text)
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant) or not isinstance(node.value, str) or id(node) in prose:
            continue
        if QEMU_WORDS.search(node.value):
            yield node.lineno


def foreign_writes(text: str) -> Iterator[int]:
    """The lines on which an attribute of anything but ``self`` is set or deleted, or an item of such an attribute."""
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Attribute(value=owner, ctx=ast.Store() | ast.Del()):
                foreign = not _is_self(owner)
            case ast.Subscript(value=ast.Attribute(value=owner), ctx=ast.Store() | ast.Del()):
                foreign = not _is_self(owner)
            case ast.Call(func=ast.Name(id="setattr" | "delattr")):
                foreign = True
            case _:
                continue
        if foreign:
            yield node.lineno


def _is_self(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id == "self"


def functions(text: str) -> Iterator[tuple[int, str]]:
    """The lines of functions that are too long or too complex, and do not say why, with what is wrong."""
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        if COMPLEX.search(line):
            yield number, "a function that is too complex has to say why, as in '# noqa: C901 - the reason'"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[1].lineno if ast.get_docstring(node) and node.body[1:] else node.lineno
            long = (node.end_lineno or first) - first + 1
            head = "\n".join(lines[node.lineno - 1 : node.body[0].lineno - 1])
            if long > MAX_FUNCTION and not LONG.search(head):
                yield (
                    node.lineno,
                    f"{node.name} has {long} lines, more than {MAX_FUNCTION}: '# long: the reason', or split it",
                )


def noun_docstrings(text: str) -> Iterator[int]:
    """The lines of functions whose docstrings name a thing, and not what the function does. Properties are things."""
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        thing = any("property" in ast.unparse(each) or ".setter" in ast.unparse(each) for each in node.decorator_list)
        if not thing and NOUNS.match(ast.get_docstring(node) or ""):
            yield node.lineno


def platform_conditionals(text: str) -> Iterator[int]:
    """The lines on which an architecture, a machine type or an event is compared with, or looked for among, words."""
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Compare(left=left, comparators=others):
                sides = [left, *others]
                if any(map(_is_platform_fact, sides)) and any(map(_has_word, sides)):
                    yield node.lineno
            case ast.Call(func=ast.Attribute(value=value, attr="startswith" | "endswith")) if _is_platform_fact(value):
                yield node.lineno
            case ast.Match(subject=subject, cases=cases) if _is_platform_fact(subject):
                if any(_has_word(case.pattern) for case in cases):
                    yield node.lineno


def platform_words(name: str, text: str) -> Iterator[int]:
    """The lines on which a string is such a name, and nothing else."""
    if name in PLATFORM_WORDS_KNOWN:
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and PLATFORM_WORDS.fullmatch(node.value):
            yield node.lineno


def _is_platform_fact(node: ast.AST) -> bool:
    return (isinstance(node, ast.Attribute) and node.attr in PLATFORM_FACTS) or (
        isinstance(node, ast.Name) and node.id in PLATFORM_FACTS
    )


def _has_word(node: ast.AST) -> bool:
    """Whether a string is in it, or it is a constant by its name, which may hold strings."""
    return any(
        (isinstance(part, ast.Constant) and isinstance(part.value, str))
        or (isinstance(part, ast.Name) and part.id.isupper())
        for part in ast.walk(node)
    )


def sys_paths(text: str) -> Iterator[int]:
    """The lines on which a string names a path below /sys."""
    tree = ast.parse(text)
    # What follows a placeholder in an f-string is the rest of a path, not the start of one.
    rests = {id(rest) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for rest in node.values[1:]}
    for node in ast.walk(tree):
        if id(node) in rests:
            continue
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("/sys/"):
            yield node.lineno


def check_hosts(name: str, text: str) -> Iterator[str]:
    """Package indexes' hosts that the file names."""
    for host in INDEX_HOSTS:
        if host in text:
            yield f"{name}: names {host}: take the index from the machine's configuration"


def check_links(root: Path, path: Path, text: str) -> Iterator[str]:
    """Relative links of a Markdown file that lead nowhere."""
    for target in LINK.findall(FENCE.sub("", text)):
        if re.match(r"[a-z]+:|#", target):
            continue
        if not (path.parent / target.split("#")[0]).exists():
            yield f"{path.relative_to(root)}: links to {target}, which is not there"


def check_versions(root: Path) -> Iterator[str]:
    """Versions that disagree with the workspace's."""
    want = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    for part in PARTS:
        project = tomllib.loads((root / part / "pyproject.toml").read_text())["project"]
        if project["version"] != want:
            yield f"{part}/pyproject.toml: version {project['version']}, not {want}"
        for need in project["dependencies"]:
            if need.startswith("vcpu-") and not need.endswith(f"=={want}"):
                yield f"{part}/pyproject.toml: needs {need}, not =={want}"
        package = f"vcpu_{part}"
        source = (root / part / "src" / package / "__init__.py").read_text()
        for found in re.findall(r'^__version__ = "(.*)"', source, re.MULTILINE):
            if found != want:
                yield f"{part}/src/{package}/__init__.py: version {found}, not {want}"
    for name, pattern in (
        ("CHANGELOG.md", r"^## \[?(\d[^\]\s]*)"),
        ("packaging/debian/changelog", r"^\S+ \(([^)]+)\)"),
        ("packaging/rpm/vcpuctl.spec", r"^Version:\s*(\S+)"),
        ("packaging/ansible/ansible_collections/vcpuctl/vcpu/galaxy.yml", r"^version: (\S+)"),
    ):
        if not (root / name).exists():
            continue
        match = re.search(pattern, (root / name).read_text(), re.MULTILINE)
        if match is None or match[1] != want:
            yield f"{name}: its newest version is {match[1] if match else 'missing'}, not {want}"


def complaints(root: Path) -> Iterator[str]:
    """Everything in the tree that breaks a rule."""
    yield from check_versions(root)
    files = tracked(root)
    tree = references.Tree(root, frozenset(str(path.relative_to(root)) for path in files))
    for path in files:
        name = str(path.relative_to(root))
        raw = path.read_bytes()
        if b"\0" in raw:
            continue
        text = raw.decode()
        yield from check_hosts(name, text)
        if name.endswith(SOURCES) or name in {"Makefile", ".ci/run"}:
            yield from check_source(name, text)
        if name.endswith(".md"):
            yield from check_links(root, path, text)
        if name.endswith((*SOURCES, ".md")) and not name.startswith(GENERATED):
            yield from references.check(tree, name, text)


def main() -> int:
    """Prints every complaint; returns the exit status."""
    found = list(complaints(Path(__file__).resolve().parents[2]))
    for line in found:
        print(line, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
