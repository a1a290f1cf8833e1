# SPDX-License-Identifier: Apache-2.0
"""``make simulate``: the autoscaler's policy in simulated time, beside models of what others do.

guest    a guest with its load, its CPUs, and the counters that its agent would tell
traces   loads over time
rules    ours, and models of Neon's rule, Proxmox's script and HPA's
run      a rule against a trace, and what came of it
report   the figures and the plots, into docs/reports
"""
