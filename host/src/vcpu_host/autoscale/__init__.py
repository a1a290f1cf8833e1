# SPDX-License-Identifier: Apache-2.0
"""How many vCPUs a VM should have: load and limits in, a goal or a hold with its reason out (ADR 28).

    sample     what the guest's agent measured, as a value
    usage      two samples make a span of usage: rates that can be trusted as far as they were measured
    window     the usage of the last minutes
    settings   what the operator wants of one VM
    outside    what bears on the VM apart from its load: its size, the host's room, what is under way
    policy     puts these together and decides
    decision   a goal, a hold, and every rule that had a say
    history    the decisions that are worth keeping

This is pure: no clock, file, loop or wire. ``now`` is an argument everywhere, in seconds of one clock that never goes
back. The loop that feeds it is ``service/autoscaler.py``; ``make simulate`` feeds it, too.
"""
