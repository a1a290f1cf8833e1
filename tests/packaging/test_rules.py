# SPDX-License-Identifier: Apache-2.0
"""The house rules see what they are there to see."""

from __future__ import annotations

from pathlib import Path

import pytest
import rules

HEADER = "# SPDX-License-Identifier: Apache-2.0\n"


def test_a_source_that_keeps_the_rules_draws_no_complaint() -> None:
    assert list(rules.check_source("guest/src/vcpu_guest/cpus/inventory.py", f'{HEADER}"""Fine."""\n')) == []


def test_a_propertys_docstring_may_name_a_thing() -> None:
    source = HEADER + 'class A:\n    """A."""\n\n    @property\n    def f(self) -> int:\n        """The number."""\n'
    assert list(rules.check_source("host/src/a.py", source)) == []


@pytest.mark.parametrize(
    ("name", "text", "word"),
    [
        ("host/a.py", '"""No licence."""\n', "begin with"),
        ("host/a.py", HEADER + "# TO" + "DO later\n", "finish it"),
        ("host/a.py", HEADER + "x = 1\n" * 400, "401 lines"),
        ("tests/a.py", HEADER + "time.slee" + "p(1)\n", "deadline"),
        ("tests/a.py", HEADER + "pytest.sk" + "ip('no')\n", "every test"),
        ("tests/a.py", HEADER + "assert time.mono" + "tonic() - began < 2\n", "count its work"),
        ("tests/a.py", HEADER + "assert 0.2 < loop.ti" + "me() - began < 2\n", "count its work"),
        ("host/src/a.py", HEADER + 'def f() -> int:\n    """The number."""\n', "Return"),
        (
            "guest/src/vcpu_guest/cpus/inventory.py",
            HEADER + "open('/sys/devices/system/cpu/online')\n",
            "let kernel/sysfs.py open it",
        ),
    ],
)
def test_each_rule_names_the_file_that_breaks_it(name: str, text: str, word: str) -> None:
    found = list(rules.check_source(name, text))
    assert len(found) == 1
    assert found[0].startswith(name)
    assert word in found[0]


@pytest.mark.parametrize(
    "text",
    [
        'if host.arch == "x86_64": pass',
        'if "pseries" in host.machine: pass',
        'if arch in {"s390x", "ppc64"}: pass',
        'if host.machine.startswith("pc-"): pass',
        "if event.action in _STATE_EVENTS: pass",
        'match event.action:\n    case "add": pass',
        'if host.arch[:3] == "ppc": pass',
        'if host.arch.lower() == "s390x": pass',
        'found = {"ppc64": 1}.get(host.arch)',
        'if platform.machine() == "aarch64": pass',
        'if name == "ACPI_DEVICE_OST": pass',
        'if host.machine[:3] == "pc-": pass',
    ],
)
def test_only_platform_modules_ask_for_the_name_of_a_machine_or_an_event(text: str) -> None:
    for name in ("host/src/vcpu_host/core/planning/plan.py", "guest/src/vcpu_guest/cpus/inventory.py"):
        (found,) = rules.check_source(name, HEADER + text + "\n")
        assert "platform module's business" in found
    for name in ("host/src/vcpu_host/core/platforms/x86.py", "guest/src/vcpu_guest/platforms/acpi.py", "tests/a.py"):
        assert list(rules.check_source(name, HEADER + text + "\n")) == []


@pytest.mark.parametrize("text", ["if machine is None: pass", "x = {'arch': host.arch}", "if machine.finished: pass"])
def test_what_only_passes_a_machine_on_draws_no_complaint(text: str) -> None:
    assert list(rules.check_source("host/src/vcpu_host/core/planning/plan.py", HEADER + text + "\n")) == []


def test_sysfs_py_may_name_sysfs_and_others_may_name_the_rest_of_a_path() -> None:
    opens = HEADER + "open('/sys/devices/system/cpu/online')\n"
    assert list(rules.check_source("guest/src/vcpu_guest/kernel/sysfs.py", opens)) == []
    elsewhere = list(rules.check_source("guest/src/vcpu_guest/cpus/sysfs.py", opens))
    assert len(elsewhere) == 1, "the name alone gives no right"
    rest = HEADER + "open(f'{proc}/sys/kernel/random/boot_id')\n"
    assert list(rules.check_source("guest/src/vcpu_guest/kernel/procfs.py", rest)) == []


@pytest.mark.parametrize("host", rules.INDEX_HOSTS)
def test_the_host_of_a_package_index_is_seen_in_any_file(host: str) -> None:
    assert len(list(rules.check_hosts("docs/a.md", f"see https://{host}/simple"))) == 1


def test_a_link_that_leads_nowhere_is_seen_and_one_that_leads_somewhere_is_not(tmp_path: Path) -> None:
    page = tmp_path / "a.md"
    (tmp_path / "b.md").touch()
    text = "[good](b.md#part) [web](https://example.org) [here](#x) [bad](c.md)\n```\n[code](d.md)\n```\n"
    assert [line.split("links to ")[1] for line in rules.check_links(tmp_path, page, text)] == [
        "c.md, which is not there"
    ]


def test_a_version_that_disagrees_is_seen(tmp_path: Path, root: Path) -> None:
    for name in ("pyproject.toml", "CHANGELOG.md", "packaging/debian/changelog"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text((root / name).read_text())
    for part in rules.PARTS:
        package = tmp_path / part / "src" / f"vcpu_{part}"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text((root / part / "src" / f"vcpu_{part}" / "__init__.py").read_text())
        (tmp_path / part / "pyproject.toml").write_text((root / part / "pyproject.toml").read_text())
    assert list(rules.check_versions(tmp_path)) == []
    changelog = tmp_path / "packaging/debian/changelog"
    changelog.write_text(changelog.read_text().replace("(", "(9", 1))
    assert len(list(rules.check_versions(tmp_path))) == 1


def test_a_function_that_is_too_long_is_seen_unless_it_says_why() -> None:
    body = "".join(f"    x = {number}\n" for number in range(rules.MAX_FUNCTION))
    (found,) = rules.check_source("host/a.py", HEADER + "def f() -> None:\n" + body)
    assert "f has 61 lines" in found
    assert list(rules.check_source("host/a.py", HEADER + "def f() -> None:  # long: one table\n" + body)) == []
    docstring = '    """Words.\n\n    More of them.\n    """\n'
    shorter = body.removesuffix(f"    x = {rules.MAX_FUNCTION - 1}\n")
    assert list(rules.check_source("host/a.py", HEADER + "def f() -> None:\n" + docstring + shorter)) == []


def test_a_function_that_is_too_complex_has_to_say_why() -> None:
    mark = "# noqa" + ": C901"
    (found,) = rules.check_source("host/a.py", HEADER + f"def f() -> None: {mark}\n    pass\n")
    assert "has to say why" in found
    assert list(rules.check_source("host/a.py", HEADER + f"def f() -> None: {mark} - one table\n    pass\n")) == []


@pytest.mark.parametrize("text", ['x = f"vcpu-{n}"', 'x = "/machine/unattached/"', 'x = "/a/peripheral/"'])
def test_the_core_neither_makes_nor_reads_ids_and_paths_of_qemu(text: str) -> None:
    (found,) = rules.check_source("host/src/vcpu_host/core/a.py", HEADER + text + "\n")
    assert "the adapter's business" in found
    assert list(rules.check_source("host/src/vcpu_host/qmp/a.py", HEADER + text + "\n")) == []


@pytest.mark.parametrize(
    "text",
    [
        "job.outcome = outcome",
        "thread.present = thread.online = False",
        "job.retries += 1",
        "before, job.ending = job.ending, None",
        "job.phases[phase] = 1.0",
        "job.removal.sent = True",
        "self._state.paused = True",
        "for job.order in orders: pass",
        "del job.reason",
        'setattr(job, "outcome", outcome)',
    ],
)
def test_nobody_writes_what_another_object_of_the_state_machine_knows(text: str) -> None:
    found = list(rules.check_source("host/src/vcpu_host/core/operation/transitions.py", HEADER + text + "\n"))
    assert found
    assert all("a method named after what happened" in line for line in found)
    assert list(rules.check_source("host/src/vcpu_host/core/planning/plan.py", HEADER + text + "\n")) == []


def test_an_object_of_the_state_machine_may_write_what_it_knows_itself_and_anybody_may_read_it() -> None:
    text = (
        HEADER
        + "self.sent, self.ending = True, job.plug\nself.phases[name] += 1\ngroups[job.order] = job.phases[name]\n"
    )
    assert list(rules.check_source("host/src/vcpu_host/core/operation/removal.py", text)) == []


def test_the_core_may_name_our_packages_and_say_anything_in_docstrings() -> None:
    text = HEADER + '"""As /machine/peripheral/vcpu-1."""\nx = "update vcpu-guest in the guest"\n'
    assert list(rules.check_source("host/src/vcpu_host/core/a.py", text)) == []
