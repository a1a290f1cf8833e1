# SPDX-License-Identifier: Apache-2.0
"""``vcpuctl serve``: the coordinator that stays.

    kept       one VM: held whenever it can be, and asked either way
    keeper     all VMs of vms.d
    door       the service's socket: vcpuctl's own lines, and gRPC
    rpc        vcpu.host.v1.Host
    serve      puts them together, and tells systemd
    metrics    what Prometheus is told, of documents
    exposition hands that out, to this host alone

It keeps no state of its own: what is pending is on record beside the locks, as for any command.
"""
