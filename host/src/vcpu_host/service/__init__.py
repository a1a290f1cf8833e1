# SPDX-License-Identifier: Apache-2.0
<<<<<<< HEAD
"""The resident coordinator's parts: it holds VMs and offers them to others."""
=======
"""``vcpuctl serve``: the coordinator that stays.

    kept       one VM: held whenever it can be, and asked either way
    keeper     all VMs of vms.d
    door       the service's socket: vcpuctl's own lines, and gRPC
    rpc        vcpu.host.v1.Host
    serve      puts them together, and tells systemd

It keeps no state of its own: what is pending is on record beside the locks, as for any command.
"""
>>>>>>> main
