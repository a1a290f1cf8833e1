# SPDX-License-Identifier: Apache-2.0
"""Commands for several VMs: each VM is asked by itself, and one document has all the answers."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from vcpu_host import documents
from vcpu_host.core import codes
from vcpu_host.core.fleet import NoMatchError, named
from vcpu_host.core.reason import Origin, Reason
from vcpu_host.core.text import printable
from vcpu_host.errors import UsageError
from vcpu_host.local.open_files import allow_for
from vcpu_host.local.target import AnyTarget, Target, known
from vcpu_host.sharing.calls import Call, Kind
from vcpu_host.sharing.distinct import Distinct, same_names
from vcpu_host.sharing.fleet import MOST_SERVED, PARALLEL, Asks, Ended, Fleet, Member, UnusableVm
from vcpu_host.sharing.vm import asks_service

from . import doctor, render
from .connect import vm_at
from .exitcodes import Exit, of_error, of_plan, of_result, worst
from .fleet_progress import FleetProgress
from .operate import interruptible, request_of
from .target import check_many

if TYPE_CHECKING:
    from vcpu_host.documents import Document

#: A question that a VM has not answered after so many seconds is given up.
_QUESTION = 60.0
#: Seconds beyond an operation's own time limit: for reaching the VM, and for the last look at what was done.
_BEYOND = 15.0


async def ask_many(args: argparse.Namespace, words: Sequence[str]) -> Exit:
    """Ask the VMs that the words name. Raise UsageError before anything is done if they do not name VMs."""
    call = _call(args)
    check_many(args)
    targets = _targets(words, whole=call.changes)
    within = bound(call, args.timeout)
    distinct = Distinct() if call.changes else None
    members = [Member(name, _vm(name, target, distinct), call, within) for name, target in targets.items()]
    return await carry_out(args, members, dry_run=getattr(args, "dry_run", False))


def _call(args: argparse.Namespace) -> Call:
    verbosity = min(args.verbose, 2)
    if args.command in ("list", "doctor"):
        return Call(Kind(args.command), verbosity=verbosity)
    request = request_of(args, args.planned if args.command == "plan" else args.command)
    if args.command == "plan" or args.dry_run:
        return Call(Kind.PLAN, request, verbosity=verbosity)
    return Call(Kind.RUN, request, args.timeout, steps=True, verbosity=verbosity)


def bound(call: Call, timeout: float | None) -> float | None:
    """Return after how many seconds a VM is given up. An operation without a time limit ends by its own."""
    if not call.changes:
        return timeout or _QUESTION
    return None if timeout is None else timeout + _BEYOND


def _targets(words: Sequence[str], *, whole: bool) -> dict[str, AnyTarget | Reason]:
    """Return the VMs by their names. ``whole``: a file that is wrong is an error of all, not of its VM alone."""
    files = known()
    names = names_of(words, files)
    targets: dict[str, AnyTarget | Reason] = {}
    for name in names:
        target = files[name] if name in files else Target.named(name)
        if whole and isinstance(target, Reason):
            raise UsageError(target)
        targets[printable(name)] = target
    if whole:
        check_distinct({name: target for name, target in targets.items() if not isinstance(target, Reason)})
    return targets


def names_of(words: Sequence[str], files: Collection[str]) -> list[str]:
    """Return the names that words and patterns mean. Raise UsageError for a pattern that fits no file of vms.d."""
    try:
        return named(words, files)
    except NoMatchError as error:
        hint = "vcpuctl vms shows what there is"
        text = f"no VM in vms.d is called like {error}" if files else "there is no VM in vms.d"
        raise _usage(codes.NO_SUCH_VM, text, hint) from error


def check_distinct(targets: Mapping[str, AnyTarget]) -> None:
    """Raise UsageError if two of the names lead to one monitor, or to two on which one QEMU is seen to listen.

    Two paths can be one socket: by links of either kind, or by a mount.

    Where that is not seen, the VMs are told apart when they are opened (``sharing.distinct``).
    """
    seen: dict[str, str] = {}
    for name, target in targets.items():
        other = seen.setdefault(target.place, name)
        if other != name:
            raise same_names(other, name, f"both are reached at {target.told}")
    sockets = {name: target.place for name, target in targets.items() if isinstance(target, Target)}
    if len(sockets) < 2:
        return
    # Late: it reads all command lines of this host.
    from vcpu_host.local.qemus import key_of, listening

    keys: dict[str, str] = {}
    for name, place in sockets.items():
        key = key_of(place)
        if key is not None and (other := keys.setdefault(key, name)) != name:
            raise same_names(other, name, f"{sockets[other]} and {place} are one socket")
    behind = listening(sockets.values())
    names: dict[int, str] = {}
    for name, place in sockets.items():
        pid = behind.get(place)
        if pid is not None and (other := names.setdefault(pid, name)) != name:
            raise same_names(other, name, f"process {pid} listens at both {sockets[other]} and {place}")


def _vm(name: str, target: AnyTarget | Reason, distinct: Distinct | None) -> Asks:
    if isinstance(target, Reason):
        return UnusableVm(UsageError(target))
    return vm_at(target, None if distinct is None else partial(distinct.claim, name))


async def carry_out(
    args: argparse.Namespace,
    members: Sequence[Member],
    *,
    dry_run: bool,
    wanted: Mapping[str, int] | None = None,
    parallel: int | None = None,
) -> Exit:
    """Ask the members, and show how it ended for each. Return the worst of their statuses.

    ``wanted`` is how many vCPUs each is to have, where the command says that.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    allow_for(len(members))  # those that stall are waited for beside the others
    with FleetProgress(args, len(members)) as progress:
        most = MOST_SERVED if asks_service() else None

        def tell(ended: Ended) -> None:
            progress.ended(status_of(ended))

        fleet = Fleet(members, progress.hear, tell, parallel or PARALLEL, most)
        with interruptible(fleet.interrupt):
            ends = await fleet.to_end()
    parts = [_member(args.command, ended, wanted) for ended in ends]
    status = worst(Exit(part["exit_status"]) for part in parts)
    document = documents.of_fleet(args.command, parts, status, loop.time() - began, dry_run=dry_run)
    _show(args, document)
    return status


def _show(args: argparse.Namespace, document: Document) -> None:
    if args.output == "json":
        render.emit_json(document)
        return
    from . import tables
    from .fleet_tables import blocks

    tables.show(blocks(document, wide=args.output == "wide", quiet=args.quiet))


def _member(command: str, ended: Ended, wanted: Mapping[str, int] | None) -> Document:
    answer, error = ended.answer, ended.error
    if error is not None and command == "doctor":
        answer, error = doctor.of_error(error), None
    status = status_of(Ended(ended.name, answer, error, ended.begun))
    vcpus = None if wanted is None else wanted[ended.name]
    return documents.of_member(ended.name, vcpus, answer, None if error is None else error.reason, status)


def status_of(ended: Ended) -> Exit:
    """Return the exit status of one VM's part."""
    if ended.answer is None:
        if ended.begun:
            return Exit.UNKNOWN
        return Exit.FAILED if ended.error is None else of_error(ended.error)
    if "outcome" in ended.answer:
        return of_result(ended.answer)
    if "refusals" in ended.answer:
        return of_plan(ended.answer)
    if "findings" in ended.answer:
        return doctor.status(ended.answer)
    return Exit.DONE


def _usage(code: codes.Code, text: str, hint: str) -> UsageError:
    return UsageError(Reason(code, Origin.VCPUCTL, text, hint))
