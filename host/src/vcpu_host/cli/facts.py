# SPDX-License-Identifier: Apache-2.0
"""What the man page says of vcpuctl's surroundings: the environment variables that it reads, and its files.

Data alone: nothing imports it at run time.
"""

from __future__ import annotations

#: Each environment variable and what it means.
ENVIRONMENT: tuple[tuple[str, str], ...] = (
    ("VCPUCTL_VM", "Stands for --vm if neither --vm nor --qmp is given. To set both variables is a usage error."),
    ("VCPUCTL_QMP", "Stands for --qmp if neither --vm nor --qmp is given."),
    ("VCPUCTL_SOCKET", "Where vcpuctl serve listens, instead of /run/vcpuctl.sock."),
    ("LIBVIRT_DEFAULT_URI", "Stands for --connect if that is not given; libvirt's own programs know it, too."),
    ("NO_COLOR", "If it is set, output has no colours."),
    (
        "FORCE_COLOR",
        "If it is set and not empty, output is drawn as on a terminal where it goes to a file or a pipe, too.",
    ),
    ("TTY_COMPATIBLE", "The same if it is 1. If it is 0, there are no colours on a terminal either."),
    ("TERM", "If it is dumb, no line on the terminal is redrawn."),
    ("COLUMNS", "The width that help and tables are laid out for, instead of the terminal's own."),
    ("XDG_CONFIG_HOME", "The directory in which vcpuctl/vms.d is looked for first, instead of ~/.config."),
    ("XDG_RUNTIME_DIR", "The directory in which vcpuctl/ holds locks and records if the user is not root."),
    ("LISTEN_PID", "The process that systemd hands a listening socket to: vcpuctl serve takes it if that is itself."),
    ("LISTEN_FDS", "How many systemd hands over: vcpuctl serve takes one, and makes its own otherwise."),
    ("NOTIFY_SOCKET", "Where vcpuctl serve tells systemd that it is ready, and how it stands."),
    ("WATCHDOG_USEC", "How often, in microseconds, systemd wants a sign of life from vcpuctl serve."),
    ("WATCHDOG_PID", "The process that the one before is meant for; any, if it is not set."),
)

#: Each file or directory and what it holds.
FILES: tuple[tuple[str, str], ...] = (
    ("~/.config/vcpuctl/vms.d/NAME.toml", "Where the VM is reached that --vm NAME names, as this user has it."),
    ("/etc/vcpuctl/vms.d/NAME.toml", "The same for all users. A user's own file comes before it."),
    ("/run/vcpuctl", "Root's locks, and records of what QEMU was asked for and whose end is not known yet."),
    (
        "$XDG_RUNTIME_DIR/vcpuctl",
        "The same of other users. Without it: /run/user/UID/vcpuctl if /run/user/UID is there; else /tmp/vcpuctl-UID.",
    ),
    ("/run/vcpuctl.sock", "The socket of vcpuctl serve. Who may write to it may do all that vcpuctl does."),
    ("/usr/share/vcpuctl/json", "The JSON Schemas of the documents."),
    ("/usr/share/vcpuctl/grafana", "A Grafana dashboard of the metrics."),
    ("/usr/share/vcpuctl/prometheus", "Alerts on the metrics, for Prometheus' rule_files."),
)

#: The keys of a VM's file in vms.d, which is TOML and has no others.
VM_FILE_KEYS: tuple[tuple[str, str], ...] = (
    ("qmp", "The path of QEMU's monitor socket. It has to be there, but for a VM that libvirt owns."),
    ("agent", "The path of the agent's chardev socket. It can mostly be left out, since QEMU tells it."),
    ("libvirt", "Instead of these two, for a VM that libvirt owns: which libvirt, by its URI."),
    ("domain", "The domain's name there, or its UUID."),
    ("monitor", "false: look at the domain by libvirt's record alone, which does not taint it."),
    (
        "workload",
        "What is done about programs of the guest that would be hurt: ignore, warn or refuse; see --workload.",
    ),
    ("autoscale", "A table: vcpuctl serve has the VM's vCPUs follow the guest's load; see AUTOSCALING."),
)
