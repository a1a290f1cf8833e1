# SPDX-License-Identifier: Apache-2.0
"""What a command for several VMs is doing: a line that redraws on a terminal, and the log with each VM's name."""

from __future__ import annotations

import argparse
import sys
from types import TracebackType
from typing import Self

from vcpu_host.documents import read_reason
from vcpu_host.logs import open_log
from vcpu_host.sharing.wire import Message

from .exitcodes import Exit
from .progress import RedrawnLine


class FleetProgress:
    """Hears what the VMs tell on the way to their answers. ``total`` is how many VMs there are."""

    def __init__(self, args: argparse.Namespace, total: int) -> None:
        self._log = open_log(args.verbose, args.log_format)
        self._line = RedrawnLine(quiet=args.quiet)
        self._quiet = args.quiet
        self._total = total
        self._ended = 0
        self._amiss = 0
        self._last = ""
        self._said: set[tuple[str, str]] = set()

    def hear(self, name: str, message: Message) -> None:
        """Log it, or redraw."""
        if "log" in message:
            fields = dict(message["log"])
            about = fields.pop("event")
            (self._log.debug if about == "state" else self._log.info)(about, vm=name, **fields)
        elif "progress" in message:
            settled, total, words = message["progress"]
            self._redraw(f"{name}: {settled}/{total} slots  {words}")
        elif "waits" in message:
            reason = read_reason(message["waits"]["reason"])
            self._wait(name, reason.code, f"waits for the guest agent: {reason.text}")
        elif "holder" in message:
            self._wait(name, "holder", f"waits for another program that has this VM: {message['holder']}")

    def ended(self, status: Exit) -> None:
        """Note that one more VM's part has ended."""
        self._ended += 1
        self._amiss += status is not Exit.DONE
        self._redraw("")

    def _wait(self, name: str, about: str, words: str) -> None:
        """Say once what this VM waits for; where a line is drawn, it has it until something else happens."""
        if (name, about) not in self._said:
            self._said.add((name, about))
            self._log.info("waits", vm=name, code=about, text=words)
            if not self._quiet and not self._line.draws:
                sys.stderr.write(f"vcpuctl: {name} {words}\n")
                sys.stderr.flush()
        self._redraw(f"{name} {words}")

    def _redraw(self, about: str) -> None:
        amiss = f", {self._amiss} not done" if self._amiss else ""
        line = f"{self._ended}/{self._total} VMs{amiss}  {about}".rstrip()
        if line != self._last and self._line.draws:
            self._last = line
            self._line.draw(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._line.clear()
