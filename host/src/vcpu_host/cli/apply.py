# SPDX-License-Identifier: Apache-2.0
"""``vcpuctl apply``: a file says how many vCPUs each of many VMs is to have."""

from __future__ import annotations

import argparse
from functools import partial

from vcpu_host.core import codes
from vcpu_host.core.fleet import Goal, goals
from vcpu_host.core.planning.plan import OnWorkload, Operation, Request
from vcpu_host.core.reason import Origin, Reason
from vcpu_host.errors import UsageError
from vcpu_host.local import inputs
from vcpu_host.local.target import AnyTarget, Domain, Target, check_name
from vcpu_host.sharing.calls import Call, Kind
from vcpu_host.sharing.distinct import Distinct
from vcpu_host.sharing.fleet import Member

from .connect import vm_at
from .exitcodes import Exit
from .fleet import bound, carry_out, check_distinct
from .target import check_no_vm

#: No file of 10,000 VMs is larger, in characters.
_MOST = 4 << 20
_HINT = 'name each VM with its vCPUs below [vms]: web1 = 4; or in JSON: {"vms": {"web1": 4}}'


async def apply(args: argparse.Namespace) -> Exit:
    """Scale each VM to what the file says. Raise UsageError, before anything is done, if it says anything wrong."""
    check_no_vm(args, text="vcpuctl apply takes the VMs of its file")
    wanted = _read(args.file)
    targets = {goal.name: _target(goal) for goal in wanted}
    check_distinct(targets)
    distinct = Distinct()
    members = []
    for goal in wanted:
        call = _call(args, goal)
        vm = vm_at(targets[goal.name], partial(distinct.claim, goal.name))
        members.append(Member(goal.name, vm, call, bound(call, args.timeout)))
    numbers = {goal.name: goal.vcpus for goal in wanted}
    return await carry_out(args, members, dry_run=args.dry_run, wanted=numbers, parallel=args.parallel)


def _target(goal: Goal) -> AnyTarget:
    if goal.libvirt is None or goal.domain is None:
        return Target.named(goal.name)
    return Domain(goal.libvirt, goal.domain, check_name(goal.name), goal.monitor)


def _call(args: argparse.Namespace, goal: Goal) -> Call:
    on = None if args.workload is None else OnWorkload(args.workload)
    request, verbosity = Request(Operation.SCALE, goal.vcpus, workload=on), min(args.verbose, 2)
    if args.dry_run:
        return Call(Kind.PLAN, request, verbosity=verbosity)
    return Call(Kind.RUN, request, args.timeout, steps=True, verbosity=verbosity)


def _read(path: str) -> tuple[Goal, ...]:
    """Return what the file says. Raise UsageError "bad-goals"."""
    try:
        return goals(inputs.text(path, _MOST))
    except (ValueError, RecursionError) as error:  # the last: to show a value that is nested deeply
        raise UsageError(Reason(codes.BAD_GOALS, Origin.VCPUCTL, f"{path}: {inputs.why(error)}", _HINT)) from error
