# SPDX-License-Identifier: Apache-2.0
"""Makes man pages and shell completions from the commands' parsers: ``man.py DIR`` fills DIR/man and DIR/completions.

They are never checked in, so they cannot be stale.
"""

from __future__ import annotations

import argparse
import email.utils
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import shtab
from vcpu_guest.main import build_parser as guest_parser
from vcpu_host.cli.parser import build_parser as host_parser
from vcpu_host.cli.usage import commands_of

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "packaging/man"
#: The names that --vm takes (vcpu_host.local.target), in words that every shell reads alike.
VM_NAMES = (
    "sh -c 'ls /etc/vcpuctl/vms.d ${XDG_CONFIG_HOME:-~/.config}/vcpuctl/vms.d 2>/dev/null | sed -n s/[.]toml$//p'"
)
#: The names that --domain takes, as this host's own libvirt lists them to anybody: no other one is asked, nor waited
#: for longer than a second. A name that shells would split is left out.
DOMAIN_NAMES = (
    "sh -c 'test ${LIBVIRT_DEFAULT_URI:-qemu:///system} = qemu:///system 2>/dev/null && "
    "timeout 1 virsh -q -r -c qemu:///system list --all --name 2>/dev/null | "
    "sed -n /^[[:alnum:]][[:alnum:]._+-]*$/p'"
)
#: What is a path: of a socket or a file.
PATHS = {"file", "qmp", "agent", "to", "source", "map", "listen"}
SHELLS = {"bash": "vcpuctl", "zsh": "_vcpuctl", "fish": "vcpuctl.fish"}


def vcpuctl_page() -> argparse.ArgumentParser:
    """The parser as the man page tells it, where some of ``--help`` has sections of its own."""
    parser = host_parser()
    parser.epilog = None
    for name, command in commands_of(parser).items():
        _tell_once(command)
        for operation, planned in commands_of(command).items() if name == "plan" else ():
            planned.description = f"Takes what {parser.prog} {operation} takes, but for --dry-run."
            for action in planned._actions:  # noqa: SLF001 - as the makers of page and completions do
                action.help = argparse.SUPPRESS
    return parser


def _tell_once(command: argparse.ArgumentParser) -> None:
    """The page tells a command's help before its description, the first paragraph of which says the same."""
    command.description = (command.description or "").partition("\n\n")[2] or None
    for below in commands_of(command).values():
        _tell_once(below)


def vcpud_page() -> argparse.ArgumentParser:
    """The same of vcpud."""
    return guest_parser()


def man_page(command: str, section: int, version: str, out: Path) -> None:
    """Write one man page: the parser's options and, from packaging/man/COMMAND.SECTION.inc if it is there, the rest.

    Raises CalledProcessError with the maker's words on stderr.
    """
    title = {1: "User Commands", 8: "System Administration"}[section]
    extra = SOURCES / f"{command}.{section}.inc"
    page = {"vcpuctl": vcpuctl_page, "vcpud": vcpud_page}[command]
    arguments = [
        *("--pyfile", __file__, "--function", page.__name__, "--prog", command, "--version", version),
        *("--format", "single-commands-section"),
        *("--project-name", "vcpuctl", "--manual-section", str(section), "--manual-title", title),
        *("--description", (page().description or command).split("\n\n")[0].rstrip(".")),
        *("--output", str(out)),
    ]
    # The page's date is the release's or the commit's, so that the same tree gives the same page.
    # It is as wide as any usage line: a line that is broken here would be broken there, too.
    environment = {**os.environ, "COLUMNS": "1000", "SOURCE_DATE_EPOCH": source_date()}
    # Late: the maker of the page runs this file too, and does not look for modules beside it.
    import man_sections

    with tempfile.NamedTemporaryFile("w", suffix=extra.suffix) as include:
        if extra.exists():
            include.write(man_sections.fill(extra.read_text()))
            include.flush()
            arguments += ["--include", include.name]
        subprocess.run(
            [str(Path(sys.executable).parent / "argparse-manpage"), *arguments], check=True, env=environment, cwd=ROOT
        )


def source_date() -> str:
    """Seconds since 1970 of the newest entry in Debian's changelog, or what the caller has set.

    Not of the last commit: what is built is the same as long as what it is built from is.
    """
    if "SOURCE_DATE_EPOCH" in os.environ:
        return os.environ["SOURCE_DATE_EPOCH"]
    lines = (ROOT / "packaging/debian/changelog").read_text().splitlines()
    signed = next(line for line in lines if line.startswith(" -- "))
    return str(int(email.utils.parsedate_to_datetime(signed.partition(">  ")[2]).timestamp()))


#: fish reads what is between quotation marks, and so gets the words by a function.
_VMS: dict[str, Any] = {**shtab.cmd(VM_NAMES), "fish": "(_vcpuctl_vms)"}
_VMS["preamble"] = {**_VMS["preamble"], "fish": f"function _vcpuctl_vms\n    {VM_NAMES}\nend"}


#: zsh runs what stands in an option's own words when it reads them, and a function when it is asked.
_DOMAINS: dict[str, Any] = {**shtab.cmd(DOMAIN_NAMES), "fish": "(_vcpuctl_domains)", "zsh": "_vcpuctl_domains"}
_DOMAINS["preamble"] = {
    **_DOMAINS["preamble"],
    "fish": f"function _vcpuctl_domains\n    {DOMAIN_NAMES}\nend",
    "zsh": f'_vcpuctl_domains() {{\n  compadd -- ${{(f)"$({DOMAIN_NAMES})"}}\n}}',
}


def completion(shell: str, out: Path) -> None:
    """Write vcpuctl's completion of one shell."""
    parser = host_parser(full=True)
    _complete(parser)
    out.write_text(shtab.complete(parser, shell=shell) + "\n")


def _complete(parser: argparse.ArgumentParser) -> None:
    """Say what the values of options are: VMs, and files. Slots would cost a look at the VM at every tab."""
    parser.description = (parser.description or "").split("\n", 1)[0]
    for action in parser._actions:  # noqa: SLF001 - as above
        if action.dest == "vm":
            action.complete = _VMS  # type: ignore[attr-defined]
        elif action.dest == "domain":
            action.complete = _DOMAINS  # type: ignore[attr-defined]
        elif action.dest in PATHS:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    for command in commands_of(parser).values():
        _complete(command)


def make(target: Path, version: str) -> None:
    """Fill ``target`` with man/ and completions/."""
    pages, completions = target / "man", target / "completions"
    for directory in (pages, completions):
        directory.mkdir(parents=True, exist_ok=True)
    man_page("vcpuctl", 1, version, pages / "vcpuctl.1")
    hand_written = SOURCES / "vcpud.8"
    if hand_written.exists():
        (pages / "vcpud.8").write_text(hand_written.read_text().replace("@VERSION@", version))
    else:
        man_page("vcpud", 8, version, pages / "vcpud.8")
    for shell, name in SHELLS.items():
        path = completions / shell / name
        path.parent.mkdir(exist_ok=True)
        completion(shell, path)


def main() -> int:
    """Make everything below the directory that is the only argument."""
    from vcpu_host import __version__

    make(Path(sys.argv[1]), __version__)
    return 0


if __name__ == "__main__":
    sys.exit(main())
