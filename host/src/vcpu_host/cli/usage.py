# SPDX-License-Identifier: Apache-2.0
"""Reads the command line, and says what is wrong with words that make no command.

Quick to import, since ``--help`` needs it.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, NoReturn

from .values import FORMS, BadValueError

# Patterns are compiled where they are used: few runs need them, and compiling is slow.

#: -o, perhaps behind others that take nothing, and --output, with their value in the same word or the next one.
_OUTPUT = r"(?s:(?:-[vqf]*o=?|--output=)(.+)|-[vqf]*o|--output)"

#: argparse's messages about one argument, and ours. {0} is the argument, {1} what the message names besides.
_MESSAGES = (
    (r"expected (?:one|1) argument", "{0} needs a value"),
    (r"expected at least one argument", "{0} needs a value, or more than one"),
    (r"(?s)ignored explicit argument (.*)", "{0} takes no value, and {1} is one"),
    (r"(?s)not allowed with argument (.*)", "{0} and {1} exclude each other: give one of them"),
)
#: argparse's messages about arguments that are not there.
_MISSING = (
    (r"(?s)the following arguments are required: (.*)", "{0} needs {1}"),
    (r"(?s)one of the arguments (.*) is required", "{0} needs {1}"),
)

_MEANT = "did you mean"
#: The group of options that say which VM is meant. Some commands take no VM.
ABOUT_A_VM = "virtual machine"
#: So many commands are named that take an option.
_TAKERS = 3


class CommandLineError(Exception):
    """Words that make no command. Its text says what is wrong with them, ``hint`` what to do."""

    def __init__(self, text: str, hint: str) -> None:
        super().__init__(text)
        self.hint = hint


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Formats help for the terminal's width.

    Its base imports shutil to learn the width, which is slow. In Python 3.11 the base also fails on a usage line that
    has options which exclude each other and are not shown.
    """

    def __init__(self, prog: str, **settings: Any) -> None:
        super().__init__(prog, width=_columns() - 2, **settings)

    def add_usage(
        self,
        usage: str | None,
        actions: Iterable[argparse.Action],
        groups: Iterable[Any],
        prefix: str | None = None,
    ) -> None:
        """Add the usage line, with the options that are shown and no others."""
        told = [action for action in actions if action.help is not argparse.SUPPRESS]
        members = [(group, group._group_actions) for group in groups]  # noqa: SLF001 - argparse has no other way
        shown = [group for group, inside in members if any(action in told for action in inside)]
        super().add_usage(usage, told, shown, prefix)


def _columns() -> int:
    """Return the width of the terminal, as shutil.get_terminal_size finds it."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isascii() and columns.isdigit() and int(columns[:9]) > 0:
        return int(columns[:9])
    try:
        return os.get_terminal_size(sys.__stdout__.fileno()).columns or 80  # type: ignore[union-attr]
    except (AttributeError, ValueError, OSError):  # stdout is closed, or is no terminal
        return 80


class _Below(argparse._SubParsersAction):  # type: ignore[type-arg]  # noqa: SLF001 - argparse has no other way
    """The name of a command, with all that stands behind it.

    argparse parses that by itself, lets it override what stands before the name, and compares nothing. Here the rule is
    the same wherever options stand: those that exclude each other are an error, those that may be repeated add up.
    """

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: Any = None) -> None:
        """Parse what stands behind the name. Raise argparse.ArgumentError for what excludes an option before it."""
        behind = argparse.Namespace()
        super().__call__(parser, behind, values, option_string)
        for group in parser._mutually_exclusive_groups:  # noqa: SLF001 - argparse has no other way to them
            _check_exclusive(group._group_actions, namespace, behind)  # noqa: SLF001 - as above
        for action in parser._actions:  # noqa: SLF001 - as above
            if isinstance(action, _ADD_UP) and _is_given(action, namespace) and hasattr(behind, action.dest):
                setattr(behind, action.dest, getattr(namespace, action.dest) + getattr(behind, action.dest))
        for name, value in vars(behind).items():
            setattr(namespace, name, value)


def _check_exclusive(group: Sequence[argparse.Action], before: argparse.Namespace, behind: argparse.Namespace) -> None:
    """Raise argparse.ArgumentError if two of the group are given, one before a command's name and one behind it."""
    for action in (each for each in group if hasattr(behind, each.dest)):
        for other in (each for each in group if each is not action and _is_given(each, before)):
            raise argparse.ArgumentError(action, f"not allowed with argument {'/'.join(other.option_strings)}")


#: Kinds of options that may be repeated.
_ADD_UP = (argparse._AppendAction, argparse._CountAction)  # noqa: SLF001 - argparse has no other names for them


def _is_given(action: argparse.Action, namespace: argparse.Namespace) -> bool:
    """Return whether the option has been given so far: else it has its default."""
    return getattr(namespace, action.dest, action.default) is not action.default


class Parser(argparse.ArgumentParser):
    """A parser that raises CommandLineError and takes no abbreviated options.

    An abbreviation that works today becomes ambiguous, or means something else, when an option is added.

    ``instead`` says what to write in place of options that users may look for and that this command does not take.
    ``whole`` makes the whole grammar, where this is the parser of a part.
    """

    whole: Callable[[], Parser] | None = None

    def __init__(self, *, example: str = "", **settings: Any) -> None:
        settings = {"formatter_class": HelpFormatter, **settings}
        super().__init__(allow_abbrev=False, exit_on_error=False, **settings)
        self.register("action", "parsers", _Below)
        self.color = False  # Python 3.14 would colour what goes to stderr by what stdout is
        self.example = example
        self.instead: dict[str, str] = {}

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse as the base does. Raise CommandLineError."""
        try:
            return super().parse_known_args(args, namespace)
        except argparse.ArgumentError as error:
            raise _explained(self, error, sys.argv[1:] if args is None else args) from error

    def error(self, message: str) -> NoReturn:
        """Raise CommandLineError."""
        raise _missing(self, message)

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        if action.nargs == argparse.PARSER and arg_strings[:1] == ["--"]:
            arg_strings = arg_strings[1:]  # options end there; it names no command (as from Python 3.13 on)
        return super()._get_values(action, arg_strings)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - argparse has no other way
            raise _no_command(self, value)
        name = "/".join(action.option_strings) or str(action.metavar or action.dest)
        text = f"{name} is one of {', '.join(action.choices)}, and {value!r} is none of them"
        raise CommandLineError(text, _did_you_mean(value, action.choices) + see(self))


def _explained(parser: Parser, error: argparse.ArgumentError, words: Sequence[str]) -> CommandLineError:
    """Return the error of argparse in our words. ``words`` are those that the parser was given."""
    message = str(error.message)
    if error.argument_name is None:  # from Python 3.12 on, arguments that are missing
        return _missing(parser, message)
    told: BaseException | None = error
    while told is not None and not isinstance(told, BadValueError):
        told = told.__context__
    if isinstance(told, BadValueError):
        hint = told.hint.replace("{prog}", parser.prog) if told.hint else see(parser)
        return CommandLineError(message if told.hint else f"{error.argument_name}: {message}", hint)
    for pattern, told_as in _MESSAGES:
        match = re.fullmatch(pattern, message)
        if match is not None:
            plain = CommandLineError(told_as.format(error.argument_name, *match.groups()), _like(parser))
            return (_no_value(parser, error.argument_name, words) if message.startswith("expected") else None) or plain
    return CommandLineError(f"{error.argument_name}: {message}", see(parser))


def _no_value(parser: Parser, argument: str, words: Sequence[str]) -> CommandLineError | None:
    """Return the error for an option with a value that argparse takes for an option, as it begins with a dash.

    Return None if the option has no value, or if it is followed by an option that there is.
    """
    names = argument.split("/")
    for word, value in pairwise(words):
        if word not in names or not re.match("--?[^-]", value) or _is_option(parser, value):
            continue
        as_one = f"{word}={value}" if word.startswith("--") else f"{word}{value}"
        try:
            parser.parse_known_args([as_one])
        except CommandLineError as error:
            if str(error).startswith(argument):
                return error
        text = f"{argument} needs a value, and {value!r} may be an option"
        return CommandLineError(text, f"a value that begins with a dash is given as {as_one}; {see(parser)}")
    return None


def _missing(parser: Parser, message: str) -> CommandLineError:
    for pattern, words in _MISSING:
        match = re.fullmatch(pattern, message)
        if match is not None:
            text = words.format(parser.prog, match[1] if "," in match[1] else match[1].replace(" ", " or "))
            if match[1] == "COMMAND":
                return CommandLineError(f"{parser.prog} needs a command", see(parser))
            return CommandLineError(text, _like(parser))
    return CommandLineError(message, see(parser))


def _like(parser: Parser) -> str:
    """Return a hint that shows how the command is written."""
    return f"for example: {parser.example}; {see(parser)}" if parser.example else see(parser)


def see(parser: argparse.ArgumentParser) -> str:
    """Return the hint that names the command's help."""
    return f"see {parser.prog} --help"


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a question that names the nearest of the words that are known, or nothing if none is near."""
    from vcpu_host.core.text import nearest

    near = nearest(word, known)
    return f"{_MEANT} {near}? " if near else ""


def read(parser: Parser, words: Sequence[str]) -> argparse.Namespace:
    """Return what the words say.

    For ``help``, ``--help`` and ``--version`` print what is asked for and raise SystemExit. Raise CommandLineError for
    words that make no command.
    """
    args: argparse.Namespace
    try:
        args, rest = parser.parse_known_args(words)
    except CommandLineError as error:
        # argparse complains first of what is missing, or takes the value of an unknown option for the command. Unless
        # we know what was meant, an option that does not exist is the mistake then.
        if not error.hint.startswith(_MEANT):
            _check_options(parser, words)
        raise
    path = _path(parser, args)
    command = command_parser(parser, path)
    if rest:
        raise _left_over(parser, command, rest, words)
    if args.command == "help":
        command_parser(parser, args.words).print_help()
        command.exit()
    return args


def command_parser(parser: argparse.ArgumentParser, path: Sequence[str]) -> argparse.ArgumentParser:
    """Return the parser of the command that these words name. Raise CommandLineError if they name none."""
    for name in path:
        choices = commands_of(parser)
        if name not in choices:
            raise _no_command(parser, name)
        parser = choices[name]
    return parser


def commands_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Return the commands of a command, by their names."""
    below = _below(parser)
    return {} if below is None else dict(below.choices)


def _below(parser: argparse.ArgumentParser) -> argparse._SubParsersAction[argparse.ArgumentParser] | None:
    """Return the argument of ``parser`` that is the name of a command below it."""
    actions = parser._actions  # noqa: SLF001 - argparse has no other way to them
    return next((action for action in actions if isinstance(action, argparse._SubParsersAction)), None)  # noqa: SLF001


def _no_command(parser: argparse.ArgumentParser, name: str) -> CommandLineError:
    text = f"there is no command {name!r} in {parser.prog}"
    return CommandLineError(text, _did_you_mean(name, commands_of(parser)) + see(parser))


def _path(parser: argparse.ArgumentParser, args: argparse.Namespace) -> list[str]:
    """Return the names of the command, from the outermost to the innermost."""
    path: list[str] = []
    while (below := _below(parser)) is not None:
        path.append(getattr(args, below.dest))
        parser = below.choices[path[-1]]
    return path


def _check_options(top: Parser, words: Sequence[str]) -> None:
    """Raise CommandLineError for the first option that does not exist where it stands, or, if short, stands wrongly."""
    parser: argparse.ArgumentParser = top
    for place, word in enumerate(words):
        commands = commands_of(parser)
        if word == "--":
            return
        if word in commands:
            parser = commands[word]
        elif word.startswith("-") and not _is_option(parser, word):
            command = next((commands[each] for each in words[place:] if each in commands), None)
            if word.startswith("--") or (command is not None and _is_option(command, word)):
                raise _no_option(top, parser, word, command)


def _options(parser: argparse.ArgumentParser) -> Iterable[str]:
    return parser._option_string_actions  # noqa: SLF001 - argparse has no other way to them


def _is_option(parser: argparse.ArgumentParser, word: str) -> bool:
    """Return whether the parser takes the option that the word is, or begins with."""
    return _option(parser, word) in _options(parser)


def _option(parser: argparse.ArgumentParser, word: str) -> str:
    """Return the option without its value: a short one may have that in the same word."""
    name = word.partition("=")[0]
    return word[:2] if not word.startswith("--") and word[:2] in _options(parser) else name


def _no_option(
    top: Parser, parser: argparse.ArgumentParser, word: str, command: argparse.ArgumentParser | None = None
) -> CommandLineError:
    """Return the error for an option that ``parser`` does not take. ``command`` is the one that the user means."""
    name = _option(command or parser, word)
    return CommandLineError(f"{parser.prog} does not take {name}", _instead(top, command or parser, name))


def _instead(top: Parser, command: argparse.ArgumentParser, name: str) -> str:
    """Return the hint for an option that was not taken: where it stands, who takes it, or which one may be meant."""
    if name in _options(command):
        return f"{name} stands behind the command: {command.prog} {name} ..."
    if isinstance(command, Parser) and name in command.instead:
        return f"{command.instead[name].format(prog=command.prog)}; {see(command)}"
    whole = top.whole() if top.whole is not None else top
    if name in _options(whole):
        if name in _about_a_vm(whole) and not commands_of(command):
            return f"it takes no VM: leave {name} out; {see(command)}"
        return f"{name} stands before the command: {top.prog} {name} ..."
    takers = [taker.prog.removeprefix(f"{top.prog} ") for taker in _every_command(whole) if name in _options(taker)]
    if takers:
        others = " and others" if len(takers) > _TAKERS else ""
        return f"{name} is for {', '.join(takers[:_TAKERS])}{others}; {see(command)}"
    # A short option is as near to every other one.
    long = [each for each in _options(command) if each.startswith("--")] if name.startswith("--") else []
    return _did_you_mean(name, long) + see(command)


def _about_a_vm(parser: argparse.ArgumentParser) -> set[str]:
    groups = [group for group in parser._action_groups if group.title == ABOUT_A_VM]  # noqa: SLF001 - as above
    return {name for group in groups for action in group._group_actions for name in action.option_strings}  # noqa: SLF001


def _every_command(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Yield the parser of each command that has none below it."""
    below = commands_of(parser)
    if not below:
        yield parser
    for each in below.values():
        yield from _every_command(each)


def _left_over(
    top: Parser, command: argparse.ArgumentParser, rest: Sequence[str], words: Sequence[str]
) -> CommandLineError:
    """Return the error for words that are too many."""
    behind = words[words.index("--") + 1 :] if "--" in words else ()
    option = next((word for word in rest if word.startswith("-") and word not in ("-", "--")), None)
    if option is not None and option in behind:
        text = f"{command.prog} does not take {option} behind --"
        return CommandLineError(text, f"options stand before --, what stands behind it is none; {see(command)}")
    if option is not None:
        return _no_option(top, command, option)
    hint = see(command)
    if "--slot" in _options(command):
        hint = f"name slots by --slot: {command.prog} --slot {rest[0]}; {hint}"
    return CommandLineError(f"{command.prog} does not take {' '.join(rest)}", hint)


def wants_json(words: Sequence[str]) -> bool:
    """Return whether the user asks for a document, as far as words that make no command say so.

    Only what is a form counts: a name such as -foo, behind --domain, has the look of the option with a value.
    """
    form = ""
    for word, following in pairwise([*words, ""]):
        match = re.fullmatch(_OUTPUT, word)
        if match is not None and (match[1] or following) in FORMS:
            form = match[1] or following
    return form == "json"
