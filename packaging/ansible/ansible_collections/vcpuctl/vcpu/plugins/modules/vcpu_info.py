#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0 OR GPL-3.0-or-later
# Apache License 2.0, or GNU General Public License v3.0 or later
# (see https://www.gnu.org/licenses/gpl-3.0.txt), as you like.

DOCUMENTATION = r"""
module: vcpu_info
short_description: Shows the vCPUs of running virtual machines
version_added: "0.1.0"
author:
  - vcpuctl maintainers (@vcpuctl)
description:
  - Shows the vCPUs of a host's running QEMU virtual machines, as QEMU and as the guest have them, and the agent in the
    guest.
  - With I(libvirt) and without I(vms) it shows the domains of a libvirt, running and off, and sends nothing to their
    QEMUs.
  - It changes nothing. A VM that cannot be reached does not make the task fail; its part says why. A name that is no
    VM does.
requirements:
  - vcpuctl on the managed host (the role vcpuctl.vcpu.vcpu_host installs it)
  - Python 3.6 or newer for Ansible's own interpreter there
options:
  vms:
    description:
      - Names of files in C(/etc/vcpuctl/vms.d), or patterns such as C(web*). Without it, all of them. An empty list is
        none of them.
      - With I(libvirt), names or UUIDs of its domains. To look at a domain's slots marks it as tainted in libvirt, as
        each use of vcpuctl with it does.
    type: list
    elements: str
  libvirt:
    description:
      - The URI of a libvirt, such as C(qemu:///system).
    type: str
  doctor:
    description:
      - Also finds what stands in the way of each VM, with the fix for it.
    type: bool
    default: false
  timeout:
    description:
      - How long a VM may take to answer, such as C(10s).
    type: str
  executable:
    description:
      - The command, as a name or a path. A name is also looked for in C(/usr/local/bin) and C(/opt/vcpuctl/bin).
    type: str
    default: vcpuctl
attributes:
  check_mode:
    support: full
    description: It changes nothing.
  diff_mode:
    support: none
    description: It changes nothing.
  platform:
    support: full
    platforms: posix
    description: The hosts that vcpuctl runs on.
"""

EXAMPLES = r"""
- name: Look at all VMs of the host
  vcpuctl.vcpu.vcpu_info:
  register: found

- name: Say which guests have no agent
  ansible.builtin.debug:
    msg: "{{ found.vms | dict2items | selectattr('value.agent', 'none') | map(attribute='key') }}"

- name: List the domains of this host's libvirt
  vcpuctl.vcpu.vcpu_info:
    libvirt: qemu:///system
  register: libvirt

- name: Say which domains have no channel for the agent
  ansible.builtin.debug:
    msg: "{{ libvirt.domains | rejectattr('channel') | map(attribute='name') }}"
"""

RETURN = r"""
vms:
  description: What was found of each VM, by its name.
  returned: unless domains are listed
  type: dict
  contains:
    outcome:
      description: C(done), or why nothing is known of it, such as C(unreachable).
      returned: always
      type: str
    exit_status:
      description: What vcpuctl's exit status would be for this VM alone.
      returned: always
      type: int
    error:
      description: Why nothing is known of it (C(code), C(who), C(text), C(hint), C(errno)); null if something is.
      returned: always
      type: dict
    possible_vcpus:
      description: How many vCPUs it can have.
      returned: always
      type: int
    plugged_vcpus:
      description: How many QEMU has.
      returned: always
      type: int
    online_vcpus:
      description: How many are online in the guest; null if there is no agent to ask.
      returned: always
      type: int
    agent:
      description: The agent in the guest (C(version), C(kernel), C(boot_id), C(platform)); null if none answers.
      returned: always
      type: dict
    agent_trouble:
      description: Why no agent answers, as a reason; null if one does.
      returned: always
      type: dict
    machine:
      description: QEMU's version, machine, architecture, state and so on. See C(vm) in docs/json/list.schema.json.
      returned: always
      type: dict
    slots:
      description: All slots with their states. See C(slots) in docs/json/list.schema.json.
      returned: always
      type: list
      elements: dict
    findings:
      description: What doctor found (C(level), C(code), C(text), C(fix)).
      returned: with I(doctor)
      type: list
      elements: dict
domains:
  description: The domains of the libvirt. See docs/json/domains.schema.json.
  returned: with I(libvirt) and without I(vms)
  type: list
  elements: dict
  sample:
    - name: web1
      uuid: 6695eb01-f6a4-8304-79aa-97f2502e193f
      state: running
      persistent: true
      vcpus: 2
      most_vcpus: 16
      channel: true
      connected: true
      configured: []
      lacks: []
      add: null
error:
  description: Why vcpuctl refused the whole; the fields are those of a reason.
  returned: if it did
  type: dict
exit_status:
  description: vcpuctl's exit status with that refusal.
  returned: if it refused the whole, or could not be run
  type: int
"""

from typing import Dict, List

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.vcpuctl.vcpu.plugins.module_utils import documents
from ansible_collections.vcpuctl.vcpu.plugins.module_utils.command import Vcpuctl, common_arguments


def within(module: AnsibleModule) -> List[str]:
    """Return the words for the time limit."""
    timeout = module.params["timeout"]
    return [] if timeout is None else ["--timeout=" + timeout]


def of_files(module: AnsibleModule, vcpuctl: Vcpuctl, command: str) -> Dict[str, documents.Document]:
    """Return the parts of VMs of vms.d by their names. One name that is no pattern gives a document of its own."""
    # One word each: a name may begin with a dash.
    words = ["--vm=" + name for name in module.params["vms"] or []] or ["--all"]
    document, status = vcpuctl.ask([*words, *within(module), command])
    if "vms" in document:
        return documents.members(document, None)
    error = document.get("error")
    if error is not None:
        if error["code"] == "no-such-vm" and not module.params["vms"]:
            return {}
        if status == 2 or len(module.params["vms"] or []) != 1:
            vcpuctl.fail(error, status)
    part = {"document": None if error else document, "error": error, "exit_status": status}
    return {module.params["vms"][0]: part}


def of_domains(module: AnsibleModule, vcpuctl: Vcpuctl, command: str) -> Dict[str, documents.Document]:
    """Return the parts of domains by their names, asked for one by one."""
    parts = {}
    for name in module.params["vms"]:
        # One word each: a name may begin with a dash.
        words = ["--connect=" + module.params["libvirt"], "--domain=" + name, *within(module), command]
        document, status = vcpuctl.ask(words)
        error = document.get("error")
        if error is not None and status == 2:
            vcpuctl.fail(error, status)
        parts[name] = {"document": None if error else document, "error": error, "exit_status": status}
    return parts


def main() -> None:
    module = AnsibleModule(
        argument_spec=dict(
            common_arguments(),
            vms=dict(type="list", elements="str"),
            libvirt=dict(type="str"),
            doctor=dict(type="bool", default=False),
            timeout=dict(type="str"),
        ),
        supports_check_mode=True,
    )
    if module.params["vms"] == []:
        module.exit_json(changed=False, vms={})  # what a template has left empty does not stand for all
    vcpuctl = Vcpuctl(module)
    if module.params["libvirt"] and module.params["vms"] is None:
        document = vcpuctl.ask_all([*within(module), "vms", "--connect=" + module.params["libvirt"]])[0]
        module.exit_json(changed=False, domains=document["domains"])
    look = of_domains if module.params["libvirt"] else of_files
    vms = dict((name, documents.looked(part)) for name, part in look(module, vcpuctl, "list").items())
    if module.params["doctor"] and vms:
        examined = look(module, vcpuctl, "doctor")
        for name, found in vms.items():
            # By now there may be other VMs.
            examination = examined[name]["document"] if name in examined else None
            found["findings"] = examination["findings"] if examination else []
    module.exit_json(changed=False, vms=vms)


if __name__ == "__main__":
    main()
