# SPDX-License-Identifier: Apache-2.0
"""The entry point: parse, run one command, turn whatever it raises into words and an exit status, in one place."""

from __future__ import annotations

import argparse
import gc
import io
import os
import sys
from collections.abc import Sequence

from .parser import build_parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``vcpuctl`` with these arguments; the exit status.

    Without ``argv`` it is a process's own start. Then the search for garbage is put off until all is loaded (in
    ``connect``), and left out at the end: a sixth of the time of ``list``.
    """
    if argv is None:
        gc.disable()
    args = build_parser().parse_args(argv)
    # Late, so that --help and usage errors cost nothing.
    import asyncio

    from vcpu_host.errors import VcpuctlError

    from . import commands
    from .exitcodes import Exit, of_error

    # A name that this terminal's encoding does not have must not end the command: guests choose some of the words.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        return int(asyncio.run(commands.run(args)))
    except VcpuctlError as error:
        _report(args, error)
        return int(of_error(error))
    except KeyboardInterrupt:
        return int(Exit.UNKNOWN)
    except BrokenPipeError:
        # The reader of stdout went away (| head). Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return int(Exit.FAILED)
    finally:
        if argv is None:
            gc.freeze()


def _report(args: argparse.Namespace, error: Exception) -> None:
    from vcpu_host.errors import VcpuctlError

    from .exitcodes import of_error
    from .render import emit_json

    if not isinstance(error, VcpuctlError):
        raise error
    if args.output == "json":
        emit_json({"error": error.reason.to_json(), "exit_status": int(of_error(error))})
    print(f"vcpuctl: {error.reason.text}", file=sys.stderr)  # noqa: T201 - stderr is for people
    if error.reason.hint:
        print(f"         {error.reason.hint}", file=sys.stderr)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
