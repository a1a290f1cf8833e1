# SPDX-License-Identifier: Apache-2.0
"""The one place that writes to stdout. ``documents`` makes what programs read, ``tables`` what people read."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from vcpu_host import documents
from vcpu_host.core import codes
from vcpu_host.core.reason import Origin, Reason
from vcpu_host.errors import OutcomeLostError

from . import standard


def emit_json(document: documents.Document) -> None:
    """Write one JSON document to stdout, and nothing else. Raise as ``emit``."""
    emit(documents.text(document))


def emit(text: str) -> None:
    """Write the text and the end of its line to stdout. Raise as ``writing``."""
    with writing():
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


@contextmanager
def writing() -> Iterator[None]:
    """Have a block write to stdout: whatever writes there does it within this.

    Raise OutcomeLostError "not-written" if stdout does not take it, or the user waits no longer until it does, and
    BrokenPipeError if nobody reads it any more.
    """
    standard.in_order()
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise _not_written(f"the answer cannot be written to stdout: {error.strerror}") from error
    except KeyboardInterrupt as error:
        raise _not_written("the wait for whoever is to read the answer on stdout was ended") from error


def _not_written(text: str) -> OutcomeLostError:
    hint = "whatever was begun has ended: vcpuctl log tells how, and vcpuctl list shows what is"
    return OutcomeLostError(Reason(codes.NOT_WRITTEN, Origin.VCPUCTL, text, hint))
