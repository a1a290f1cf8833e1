# SPDX-License-Identifier: Apache-2.0
"""Man pages and completions: made from the parsers, complete, and free of faults."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import man
import man_sections
import pytest
from kit import documents as held
from kit.sim.views import vm
from vcpu_host.cli import facts
from vcpu_host.cli.exitcodes import Exit
from vcpu_host.cli.parser import build_parser
from vcpu_host.core import codes, log_entry
from vcpu_host.core.codes import Code
from vcpu_host.core.finding import Finding, Level
from vcpu_host.core.intent import Intent, IntentKind
from vcpu_host.core.operation.result import OperationResult, SlotResult
from vcpu_host.core.planning.plan import Operation, Request
from vcpu_host.core.planning.planner import plan
from vcpu_host.core.qemu_argv import CommandLine
from vcpu_host.core.reason import Origin, Outcome, Reason
from vcpu_host.core.view import with_pending
from vcpu_host.core.vms import Configured, Monitor, Process, join
from vcpu_host.documents import of_assigned, of_finding, of_plan, of_reason, of_result, of_view
from vcpu_host.documents.vms import of_vms
from vcpu_host.local.target import _KEYS
from vcpu_host.vm.numa_assign import Assigned

if TYPE_CHECKING:
    from debfile import Run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("made")
    man.make(target, "9.8.7")
    return target


@pytest.fixture(scope="module")
def sections(made: Path) -> dict[str, str]:
    """The page's sections by name, each in one line."""
    parts = re.split(r"\.SH ([A-Z ]+?) (?=\.|[A-Z])", _page(made))
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def commands() -> list[str]:
    actions = [a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction)]
    return list(actions[0].choices)


@pytest.mark.parametrize("page", ["vcpuctl.1", "vcpud.8"])
def test_a_page_renders_without_a_warning_and_says_its_version(made: Path, run: Run, page: str) -> None:
    path = made / "man" / page
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "MANWIDTH": "120"}
    warnings = run("sh", "-c", f"man --warnings -E UTF-8 -l {path} 2>&1 >/dev/null", env=environment)
    assert warnings == ""
    assert "9.8.7" in path.read_text()


def test_the_page_and_every_completion_know_every_command(made: Path) -> None:
    texts = [made / "man/vcpuctl.1", *(made / "completions" / shell / name for shell, name in man.SHELLS.items())]
    for path in texts:
        text = path.read_text().replace("\\-", "-")
        missing = [command for command in commands() if command not in text]
        assert not missing, f"{path.name} lacks {missing}"


def _page(made: Path) -> str:
    """The page's words, in one line."""
    return " ".join((made / "man/vcpuctl.1").read_text().replace("\\-", "-").split())


def test_the_page_tells_the_common_options_once_and_every_exit_status(made: Path) -> None:
    assert _page(made).count("--log-format") == 2  # in the synopsis, and where it is told
    statuses = _page(made).partition(".SH EXIT STATUS")[2].partition(".SH")[0]
    for status in Exit:
        assert f".TP .B {status.value} " in statuses


@pytest.mark.parametrize("code", list(codes.table().values()))
def test_the_page_tells_every_code_with_its_meaning(sections: dict[str, str], code: Code) -> None:
    assert f".TP .B {code} {code.meaning} ." in sections["REASONS"]


def test_the_page_tells_every_document_with_where_its_schema_lies(sections: dict[str, str], root: Path) -> None:
    assert "/usr/share/vcpuctl/json/NAME.schema.json" in sections["JSON"]
    for name in held.names():
        assert (f"({name}.schema.json)" in sections["JSON"]) is (name != "vcpud-check")


@pytest.mark.parametrize(
    ("section", "facts"),
    [
        ("ENVIRONMENT", facts.ENVIRONMENT),
        ("FILES", (*facts.FILES, *facts.VM_FILE_KEYS)),
        ("JOURNAL", tuple(log_entry.FIELDS.items())),
    ],
)
def test_the_page_tells_every_variable_file_and_key(
    sections: dict[str, str], section: str, facts: Iterable[tuple[str, str]]
) -> None:
    for name, words in facts:
        assert re.search(rf"\.TP \.[BI] {re.escape(name)} {re.escape(words)}", sections[section])


def test_the_page_tells_the_message_id_by_which_the_entries_are_found(sections: dict[str, str]) -> None:
    assert f"MESSAGE_ID={log_entry.MESSAGE_ID}" in sections["JOURNAL"]


def test_a_section_that_the_page_has_no_place_for_is_an_error() -> None:
    with pytest.raises(ValueError, match="@JSON@"):
        man_sections.fill("@EXIT STATUS@\n@REASONS@\n")


def test_no_word_of_the_code_is_a_command_of_the_page() -> None:
    assert man_sections.roff(r".-a\b") == r"\&.\-a\eb"


def _names(document: object) -> set[str]:
    """Of every field in a document; what stands in maps that others make the names of is left out."""
    if isinstance(document, list):
        return {name for each in document for name in _names(each)}
    if not isinstance(document, dict):
        return set()
    inside = {name for key, each in document.items() if key not in ("props", "phases") for name in _names(each)}
    return {*document, *inside}


def test_the_page_tells_every_field_of_the_documents_and_every_key_of_a_vms_file(made: Path) -> None:
    text = _page(made).partition(".SH JSON")[2]
    seen = vm(3, {0, 1})
    pending = with_pending(seen, [Intent(IntentKind.UNPLUG, 1, "vcpu-1", 0.0)])
    reason = Reason("why", Origin.QEMU, "because")
    result = OperationResult(
        Request(Operation.PLUG, 1), Outcome.DONE, (SlotResult(1, "vcpu-1", Outcome.DONE, reason),), 1.0
    )
    running = Process(1, "ada", 1, CommandLine(), (Monitor("/q", "/q", key="1"),))
    vms = join([Configured("web1", "/d/web1.toml")], [running], None, "/d")
    assigned = Assigned(Outcome.DONE, seen.host.slots, dict.fromkeys(range(3), 0))
    documents = [
        *(of_view(seen), of_view(pending), of_result(result), of_assigned(assigned), of_reason(reason)),
        *(of_plan(plan(seen, Request(Operation.PLUG, count))) for count in (1, 99)),
        of_finding(Finding(Level.OK, "fine", "it is")),
        of_vms(vms),
    ]
    missing = _names(documents) - set(re.findall(r"[a-z_]+", text))
    assert missing == set()
    assert set(re.findall(r"[a-z_]+", text.partition(".SH FILES")[2])) >= _KEYS


def test_bash_completes_the_names_of_vms_and_files(made: Path, run: Run, tmp_path: Path) -> None:
    (tmp_path / "vcpuctl/vms.d").mkdir(parents=True)
    for name in ("web1.toml", "web2.toml", "db.toml", "web3.toml~"):
        (tmp_path / "vcpuctl/vms.d" / name).touch()
    (tmp_path / "monitor.sock").touch()
    script = f"""
        {_ASK.format(made=made)}
        ask vcpuctl --vm web
        echo --
        ask vcpuctl plug --vm d
        echo --
        ask vcpuctl list --qmp {tmp_path}/mon
    """
    environment = {"PATH": "/usr/bin:/bin", "XDG_CONFIG_HOME": str(tmp_path)}
    before, behind, files = run("bash", "--norc", "-c", script, env=environment).split("--\n")
    assert before.split() == ["web1", "web2"]
    assert behind.split() == ["db"]
    assert files.split() == [f"{tmp_path}/monitor.sock"]


def test_bash_completes_the_names_of_this_hosts_domains_and_asks_no_other_libvirt(
    made: Path, run: Run, tmp_path: Path
) -> None:
    virsh = tmp_path / "virsh"
    virsh.write_text(f"#!/bin/sh\necho \"$@\" >>{tmp_path}/asked\nprintf 'web1\\nweb2\\ntwo words\\n\\n'\n")
    virsh.chmod(0o755)
    script = f"{_ASK.format(made=made)}\nask vcpuctl --domain ''"
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    assert run("bash", "--norc", "-c", script, env=environment).split() == ["web1", "web2"]
    assert (tmp_path / "asked").read_text() == "-q -r -c qemu:///system list --all --name\n"
    for uri in ("qemu+ssh://host/system", "a b", "qemu:///session"):
        offered = run("bash", "--norc", "-c", script, env={**environment, "LIBVIRT_DEFAULT_URI": uri})
        assert offered.split() == []
    assert len((tmp_path / "asked").read_text().splitlines()) == 1


#: Asks bash's completion for what the last word may become.
_ASK = """
        source {made}/completions/bash/vcpuctl
        complete=$(complete -p vcpuctl | sed 's/.*-F \\([^ ]*\\).*/\\1/')
        ask() {{ COMP_WORDS=("$@"); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMPREPLY=();
            "$complete" vcpuctl "${{@: -1}}"
            printf '%s\\n' "${{COMPREPLY[@]}}"; }}
"""


def test_bash_completes_commands_and_options(made: Path, run: Run) -> None:
    script = f"""
        {_ASK.format(made=made)}
        ask vcpuctl pl
        echo --
        ask vcpuctl --time
        echo --
        ask vcpuctl plug --time
    """
    offered, options, behind = run("bash", "--norc", "-c", script).split("--\n")
    assert set(offered.split()) == {"plug", "plan"}
    assert options.split() == behind.split() == ["--timeout"]


def test_zsh_finds_its_marker_on_the_first_line(made: Path) -> None:
    assert (made / "completions/zsh/_vcpuctl").read_text().startswith("#compdef vcpuctl\n")
