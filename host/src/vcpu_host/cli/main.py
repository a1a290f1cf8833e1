# SPDX-License-Identifier: Apache-2.0
"""The entry point: parse, run one command, turn whatever it raises into words and an exit status, in one place."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vcpu_proto.lean import without

from vcpu_host.core import codes

from . import garbage, standard
from .parser import build_parser
from .usage import CommandLineError, read, wants_json

if TYPE_CHECKING:
    from vcpu_host.errors import VcpuctlError

#: The longest line on stderr, in characters: a command line may repeat a word of any length.
_LONGEST = 2000


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``vcpuctl`` with these arguments, and return the exit status.

    Without ``argv`` it is a process's own start. Then the search for garbage is put off until all is loaded (in
    ``connect``), and left out at the end: a sixth of the time of ``list``.
    """
    if argv is not None:
        return _run(argv)
    standard.set_up()
    garbage.put_off()
    try:
        return _run(sys.argv[1:])
    finally:
        garbage.end()


def _run(words: Sequence[str]) -> int:
    try:
        args = read(build_parser(words), words)
        # Late, so that --help and usage errors cost nothing.
        with without("ssl"):  # which asyncio takes if it is there
            import asyncio

        from vcpu_host.errors import VcpuctlError

        from . import commands
        from .exitcodes import Exit
    except CommandLineError as error:
        return _misused(words, error)
    except KeyboardInterrupt:
        return _report(_interrupted(begun=False), document=wants_json(words))
    except Exception as error:  # noqa: BLE001 - who asked for a document would get a traceback alone
        return _report(_fault("the command line", error, begun=False), document=wants_json(words))

    # A name that this terminal's encoding does not have must not end the command: guests choose some of the words.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    answered: list[Exit] = []

    async def to_end() -> None:
        answered.append(await commands.run(args))

    try:
        asyncio.run(to_end())
    except VcpuctlError as error:
        return _report(error, document=args.output == "json")
    except KeyboardInterrupt:
        if not answered:
            return _report(_interrupted(begun=commands.may_change(args)), document=args.output == "json")
    except BrokenPipeError:
        # The reader of stdout went away (| head), and has not heard how it ended.
        _write_no_more()
        return int(Exit.UNKNOWN)
    except Exception as error:  # noqa: BLE001 - as above, and nobody would say what became of the VM
        fault = _fault(f"vcpuctl {args.command}", error, begun=commands.may_change(args))
        if not answered:
            return _report(fault, document=args.output == "json")
    return int(answered[0])


def _write_no_more() -> None:
    """Have what is left of stdout go nowhere: Python would complain once more when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _misused(words: Sequence[str], error: CommandLineError) -> int:
    """Report words that make no command as an error like others. Return the exit status."""
    from vcpu_host.core.reason import Origin, Reason
    from vcpu_host.errors import UsageError

    reason = Reason(codes.BAD_USAGE, Origin.VCPUCTL, str(error), error.hint)
    return _report(UsageError(reason), document=wants_json(words))


def _interrupted(*, begun: bool) -> VcpuctlError:
    """Return the error that the user has ended the wait. ``begun``: something may have been changed by then."""
    from vcpu_host.core.reason import Origin, Reason
    from vcpu_host.errors import OutcomeLostError, RefusedError

    if not begun:
        text = "the wait was ended before there was an answer: nothing was changed"
        return RefusedError(Reason(codes.INTERRUPTED, Origin.VCPUCTL, text))
    text = "the wait was ended before there was an answer: it is not known what was done"
    hint = "vcpuctl log tells of what has ended, and vcpuctl list shows what is"
    return OutcomeLostError(Reason(codes.INTERRUPTED, Origin.VCPUCTL, text, hint))


def _fault(name: str, error: Exception, *, begun: bool) -> VcpuctlError:
    """Write a mistake of vcpuctl's own to stderr, all of it. Return the error that tells of it. ``begun``: as above."""
    from vcpu_host.sharing import fault

    return fault.met(name, error, changes=begun, more=fault.ABOVE)


def _report(error: VcpuctlError, *, document: bool) -> int:
    """Say why a command ended without a result, in one line, and what to do, in a second. Return the exit status."""
    from vcpu_host.core.text import printable
    from vcpu_host.errors import VcpuctlError

    from .exitcodes import of_error

    status = int(of_error(error))
    if error.reason.code == codes.NOT_WRITTEN:
        _write_no_more()
    elif document:
        from vcpu_host import documents

        from .render import emit_json

        try:
            emit_json(documents.of_error(error.reason, status))
        except (VcpuctlError, BrokenPipeError):
            _write_no_more()  # stderr says what stdout does not take
    print(f"vcpuctl: {printable(error.reason.text, _LONGEST)}", file=sys.stderr)  # noqa: T201 - stderr is for people
    if error.reason.hint:
        print(f"         {printable(error.reason.hint, _LONGEST)}", file=sys.stderr)  # noqa: T201 - as above
    return status


if __name__ == "__main__":
    sys.exit(main())
