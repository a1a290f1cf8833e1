# SPDX-License-Identifier: Apache-2.0
"""Reading the command line: what argparse makes of it, and what is said of words that it cannot be made of.

Quick to import, since ``--help`` needs it.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, NoReturn

#: Commands that take a number or slots, both by an option, since a bare number could be either.
_AMOUNTS = ("plug", "unplug")

#: -o, perhaps behind others that take nothing, and --output, with their value in the same word or the next one.
_OUTPUT = re.compile(r"-[vq]*o(.*)|--output(?:=(.*))?", re.DOTALL)


class CommandLineError(Exception):
    """Words that make no command. ``usage`` says, in words for people, what would."""

    def __init__(self, text: str, usage: str, hint: str) -> None:
        super().__init__(text)
        self.usage = usage
        self.hint = hint


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """As its base, which in Python 3.11 fails on a usage line with options that exclude each other and are not told."""

    def add_usage(
        self,
        usage: str | None,
        actions: Iterable[argparse.Action],
        groups: Iterable[Any],
        prefix: str | None = None,
    ) -> None:
        """The usage line, of what is told alone."""
        told = [action for action in actions if action.help is not argparse.SUPPRESS]
        members = [(group, group._group_actions) for group in groups]  # noqa: SLF001 - argparse has no other way
        shown = [group for group, inside in members if any(action in told for action in inside)]
        super().add_usage(usage, told, shown, prefix)


class Parser(argparse.ArgumentParser):
    """As argparse's, but for two things: it raises CommandLineError, and beginnings of options are none.

    What may be abbreviated today is ambiguous, or means another thing, when an option is added.
    """

    def __init__(self, **settings: object) -> None:
        super().__init__(**{"allow_abbrev": False, **settings})  # type: ignore[arg-type]
        self.color = False  # Python 3.14 would colour what goes to stderr by what stdout is

    def error(self, message: str) -> NoReturn:
        """Raises CommandLineError."""
        raise CommandLineError(message, self.format_usage(), _see(self))


def read(parser: argparse.ArgumentParser, words: Sequence[str]) -> argparse.Namespace:
    """What the words say. Prints what is asked for and ends (SystemExit) for ``help``, ``--help`` and ``--version``.

    Raises CommandLineError.
    """
    try:
        args, rest = parser.parse_known_args(words)
    except CommandLineError:
        # The value of an option that is none is taken for a command, which is then the one that is complained of.
        _check_options_before_the_command(parser, words)
        raise
    path = _path(parser, args)
    command = command_parser(parser, path)
    if rest:
        raise _left_over(command, path, rest)
    if args.command == "help":
        command_parser(parser, args.words).print_help()
        command.exit()
    return args


def command_parser(parser: argparse.ArgumentParser, path: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of the command that these words name. Raises CommandLineError if they name none."""
    for name in path:
        choices = commands_of(parser)
        if name not in choices:
            text = f"there is no command {name!r} in {parser.prog}"
            raise CommandLineError(text, parser.format_usage(), _see(parser))
        parser = choices[name]
    return parser


def commands_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The commands of a command, by their names."""
    below = _below(parser)
    return {} if below is None else dict(below.choices)


def _below(parser: argparse.ArgumentParser) -> argparse._SubParsersAction[argparse.ArgumentParser] | None:
    """The argument that is the name of a command of this one."""
    actions = parser._actions  # noqa: SLF001 - argparse has no other way to them
    return next((action for action in actions if isinstance(action, argparse._SubParsersAction)), None)  # noqa: SLF001


def _path(parser: argparse.ArgumentParser, args: argparse.Namespace) -> list[str]:
    """The names of the command that it is, from the outermost to the innermost."""
    path: list[str] = []
    while (below := _below(parser)) is not None:
        path.append(getattr(args, below.dest))
        parser = below.choices[path[-1]]
    return path


def _check_options_before_the_command(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    commands = commands_of(parser)
    for word in words:
        if word in commands:
            return
        name = word.partition("=")[0]
        if name.startswith("--") and name not in parser._option_string_actions:  # noqa: SLF001 - as above
            raise CommandLineError(f"{parser.prog} does not take {name}", parser.format_usage(), _see(parser))


def _see(parser: argparse.ArgumentParser) -> str:
    return f"see {parser.prog} --help"


def _left_over(command: argparse.ArgumentParser, path: Sequence[str], rest: Sequence[str]) -> CommandLineError:
    """Why these words are too many."""
    first = rest[0]
    if path[-1] in _AMOUNTS and not first.startswith("-"):
        if first.isascii() and first.isdigit():
            text = f"{first} by itself could be a number of vCPUs or a slot"
            hint = f"say {command.prog} -n {first}, or {command.prog} --slot {first}"
        else:
            text, hint = f"{first!r} stands alone: slots are named by --slot", f"say {command.prog} --slot {first}"
        return CommandLineError(text, command.format_usage(), hint)
    text = f"{command.prog} does not take {' '.join(rest)}"
    return CommandLineError(text, command.format_usage(), _see(command))


def wants_json(words: Sequence[str]) -> bool:
    """Whether the answer is to be a document, as far as words that make no command say so."""
    form = ""
    for word, following in pairwise([*words, ""]):
        match = _OUTPUT.fullmatch(word)
        if match is not None:
            form = match[1] or match[2] or following
    return form == "json"
