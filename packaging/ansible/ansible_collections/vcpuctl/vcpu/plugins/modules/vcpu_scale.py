#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0 OR GPL-3.0-or-later
# Apache License 2.0, or GNU General Public License v3.0 or later
# (see https://www.gnu.org/licenses/gpl-3.0.txt), as you like.

DOCUMENTATION = r"""
module: vcpu_scale
short_description: Gives running virtual machines their number of vCPUs
version_added: "0.1.0"
author:
  - vcpuctl maintainers (@vcpuctl)
description:
  - Scales any number of running QEMU virtual machines of a host, each to its number of vCPUs, all at once by one
    C(vcpuctl apply).
  - A VM is done when its guest has brought these very CPUs online or, on the way down, when the guest has let them go
    and QEMU has none of them left.
  - A VM that fails or hangs holds up no other one.
requirements:
  - vcpuctl on the managed host (the role vcpuctl.vcpu.vcpu_host installs it)
  - Python 3.6 or newer for Ansible's own interpreter there
options:
  vms:
    description:
      - By the VM's name, how many vCPUs it is to have online.
      - A name is that of a file in C(/etc/vcpuctl/vms.d), unless I(libvirt) is given or the value says where the VM is.
      - Instead of a number the value may be a dictionary, as in a file of C(vcpuctl apply). C(vcpus) is the number;
        C(libvirt) (a URI) and C(domain) (a name or a UUID) say which domain of which libvirt it is; C(monitor) set to
        C(false) keeps vcpuctl from asking QEMU's monitor through libvirt.
    type: dict
    required: true
  libvirt:
    description:
      - The URI of a libvirt, such as C(qemu:///system). All VMs that do not say where they are, are its domains of
        these names.
    type: str
  timeout:
    description:
      - How long each VM may take, such as C(90), C(90s) or C(2m). What has begun by then and has not ended is
        C(unknown).
      - Without it, vcpuctl's own limits hold.
    type: str
  parallel:
    description:
      - How many VMs are worked on at once. Without it, vcpuctl's own number holds.
    type: int
  fail_on:
    description:
      - The outcomes of a VM that make the task fail.
      - Whatever is chosen, each VM's outcome is in the result. The task also fails if vcpuctl cannot be run, or refuses
        the whole of I(vms), in which case nothing was done.
    type: list
    elements: str
    choices: [failed, partial, refused, unknown, unreachable, usage]
    default: [failed, partial, refused, unknown, unreachable, usage]
  executable:
    description:
      - The command, as a name or a path. A name is also looked for in C(/usr/local/bin) and C(/opt/vcpuctl/bin).
    type: str
    default: vcpuctl
attributes:
  check_mode:
    support: full
    description: The result is that of C(vcpuctl apply --dry-run), and a VM that would be refused is.
  diff_mode:
    support: full
    description: Shows a line for each slot that comes or goes.
  platform:
    support: full
    platforms: posix
    description: The hosts that vcpuctl runs on.
notes:
  - C(unknown) is not C(failed). It may still happen, and vcpuctl has it on record. The same task once more goes on
    with it.
  - The module goes by vcpuctl's JSON documents and its exit status. What the status of a VM means is in
    the man page of vcpuctl, EXIT STATUS; what the code of a reason means is there in REASONS.
"""

EXAMPLES = r"""
- name: Give each VM its vCPUs
  vcpuctl.vcpu.vcpu_scale:
    vms:
      web1: 4
      web2: 4
      db1: 8

- name: The same for domains of this host's libvirt
  vcpuctl.vcpu.vcpu_scale:
    libvirt: qemu:///system
    vms:
      web1: 4

- name: Go on although a guest refuses, and look at the reasons
  vcpuctl.vcpu.vcpu_scale:
    vms: "{{ vcpus_by_night }}"
    timeout: 2m
    fail_on: [failed, unreachable, usage]
  register: scaled

- name: Say who has refused
  ansible.builtin.debug:
    msg: "{{ item }}: {{ scaled.vms[item].reasons | map(attribute='text') | join('; ') }}"
  loop: "{{ scaled.outcomes.refused | default([]) }}"
"""

RETURN = r"""
vms:
  description: How it ended for each VM, by its name.
  returned: if vcpuctl took the whole of I(vms)
  type: dict
  contains:
    vcpus:
      description: How many vCPUs it is to have.
      returned: always
      type: int
    outcome:
      description:
        - C(done), C(partial), C(refused) (nothing was changed), C(failed) (and undone), C(unknown) (it may still
          happen), C(unreachable) (QEMU or the agent cannot be reached) or C(usage).
        - In check mode C(planned) stands for what would be begun.
      returned: always
      type: str
      sample: done
    exit_status:
      description: What vcpuctl's exit status would be for this VM alone.
      returned: always
      type: int
    changed:
      description: Whether anything has changed, or may have. In check mode, whether anything would.
      returned: always
      type: bool
    reasons:
      description: Why it did not end as asked, or what there is to know of it.
      returned: always
      type: list
      elements: dict
      contains:
        slot:
          description: The slot that it is about; null if it is about the whole VM.
          type: int
        code:
          description: What programs go by.
          type: str
          sample: hotplug-disabled
        who:
          description: Who said no. C(vcpuctl), C(qemu), C(firmware), C(guest), C(agent) or C(libvirt).
          type: str
        text:
          description: The words of the one who said no.
          type: str
        hint:
          description: What to do; may be empty.
          type: str
        errno:
          description: The system's name of the error, such as C(EBUSY); may be empty.
          type: str
    slots:
      description: Each slot that was to be changed, with its outcome and the seconds of its phases.
      returned: not in check mode
      type: list
      elements: dict
      sample:
        - slot: 1
          id: vcpu-1
          outcome: done
          reason: null
          phases: {device_add: 0.011, arrival: 0.009, online: 0.005}
          guest_cpus: [1]
    recovered:
      description: Removals that an earlier operation had begun, and that were seen to first; the same fields.
      returned: not in check mode
      type: list
      elements: dict
    steps:
      description: What would be done, in this order, with the reason for each step.
      returned: in check mode
      type: list
      elements: dict
    elapsed:
      description: Seconds.
      returned: not in check mode, if the operation was begun
      type: float
outcomes:
  description: The names of the VMs by their outcomes.
  returned: if vcpuctl took the whole of I(vms)
  type: dict
  sample: {done: [web1, web2], refused: [db1]}
exit_status:
  description: vcpuctl's exit status, which is the worst of all VMs'. Null if it could not be run.
  returned: always
  type: int
error:
  description: Why vcpuctl refused the whole; the fields are those of a reason.
  returned: if it did
  type: dict
elapsed:
  description: Seconds.
  returned: if vcpuctl took the whole of I(vms)
  type: float
"""

import json
import re
from typing import Any, Dict, Optional

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.vcpuctl.vcpu.plugins.module_utils import documents
from ansible_collections.vcpuctl.vcpu.plugins.module_utils.command import Vcpuctl, common_arguments


def number(value: Any) -> Any:
    """Return the number of vCPUs that a template has made a string of. What is none is for vcpuctl to refuse."""
    # int takes more than numbers, not all that isdigit does, and no number of thousands of digits.
    return int(value) if isinstance(value, str) and re.match(r"\s*[0-9]{1,18}\s*\Z", value) else value


def goal(name: str, value: Any, libvirt: Optional[str]) -> Dict[str, Any]:
    """Return what a file of ``vcpuctl apply`` says of this VM."""
    wanted = dict(value) if isinstance(value, dict) else {"vcpus": value}
    if "vcpus" in wanted:
        wanted["vcpus"] = number(wanted["vcpus"])
    if libvirt and "libvirt" not in wanted:
        wanted["libvirt"] = libvirt
        wanted.setdefault("domain", name)
    return wanted


def main() -> None:
    shortfalls = list(documents.SHORTFALLS)
    module = AnsibleModule(
        argument_spec=dict(
            common_arguments(),
            vms=dict(type="dict", required=True),
            libvirt=dict(type="str"),
            timeout=dict(type="str"),
            parallel=dict(type="int"),
            fail_on=dict(type="list", elements="str", choices=shortfalls, default=shortfalls),
        ),
        supports_check_mode=True,
    )
    wanted = dict((name, goal(name, value, module.params["libvirt"])) for name, value in module.params["vms"].items())
    if not wanted:
        module.exit_json(changed=False, vms={}, outcomes={}, exit_status=0, elapsed=0.0)
    words = ["apply"]
    given = dict((option, module.params[option]) for option in ("timeout", "parallel"))
    words += ["--{0}={1}".format(option, value) for option, value in given.items() if value is not None]
    if module.check_mode:
        words.append("--dry-run")
    document, status = Vcpuctl(module).ask_all([*words, "-"], data=json.dumps({"vms": wanted}))
    try:
        parts = documents.members(document, wanted)
    except documents.DocumentError as error:
        module.fail_json(msg="vcpuctl did not answer as it promises: {0}".format(error), exit_status=status)
    read = documents.planned if module.check_mode else documents.scaled
    results = dict((name, read(part)) for name, part in parts.items())
    ended = dict(
        changed=any(result["changed"] for result in results.values()),
        vms=results,
        outcomes=documents.by_outcome(results),
        exit_status=status,
        elapsed=document["elapsed"],
    )
    if module._diff:
        ended["diff"] = documents.diff(results)
    short = documents.failing(results, module.params["fail_on"])
    if short:
        module.fail_json(msg=documents.complaint(results, short), **ended)
    module.exit_json(**ended)


if __name__ == "__main__":
    main()
