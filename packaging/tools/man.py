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
from pathlib import Path

import shtab
from vcpu_guest.main import build_parser as guest_parser
from vcpu_host.cli.parser import build_parser as host_parser

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "packaging/man"
SHELLS = {"bash": "vcpuctl", "zsh": "_vcpuctl", "fish": "vcpuctl.fish"}


def man_page(command: str, module: str, section: int, version: str, out: Path) -> None:
    """Write one man page: the parser's options and, from packaging/man/COMMAND.SECTION.inc if it is there, the rest.

    Raises CalledProcessError with the maker's words on stderr.
    """
    title = {1: "User Commands", 8: "System Administration"}[section]
    extra = SOURCES / f"{command}.{section}.inc"
    parser = {"vcpuctl": host_parser, "vcpud": guest_parser}[command]()
    arguments = [
        *("--module", module, "--function", "build_parser", "--prog", command, "--version", version),
        *("--project-name", "vcpuctl", "--manual-section", str(section), "--manual-title", title),
        *("--description", (parser.description or command).split("\n\n")[0].rstrip(".")),
        *(("--include", str(extra)) if extra.exists() else ()),
        *("--output", str(out)),
    ]
    # The page's date is the release's or the commit's, so that the same tree gives the same page.
    environment = {**os.environ, "COLUMNS": "100", "SOURCE_DATE_EPOCH": source_date()}
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


def completion(parser: argparse.ArgumentParser, shell: str, out: Path) -> None:
    """Write the completion of one shell."""
    out.write_text(shtab.complete(parser, shell=shell) + "\n")


def make(target: Path, version: str) -> None:
    """Fill ``target`` with man/ and completions/."""
    pages, completions = target / "man", target / "completions"
    for directory in (pages, completions):
        directory.mkdir(parents=True, exist_ok=True)
    man_page("vcpuctl", "vcpu_host.cli.parser", 1, version, pages / "vcpuctl.1")
    hand_written = SOURCES / "vcpud.8"
    if hand_written.exists():
        (pages / "vcpud.8").write_text(hand_written.read_text().replace("@VERSION@", version))
    else:
        man_page("vcpud", "vcpu_guest.main", 8, version, pages / "vcpud.8")
    for shell, name in SHELLS.items():
        path = completions / shell / name
        path.parent.mkdir(exist_ok=True)
        completion(host_parser(), shell, path)


def main() -> int:
    """Make everything below the directory that is the only argument."""
    from vcpu_host import __version__

    make(Path(sys.argv[1]), __version__)
    return 0


if __name__ == "__main__":
    sys.exit(main())
