#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0 OR GPL-3.0-or-later
# Apache License 2.0, or GNU General Public License v3.0 or later
# (see https://www.gnu.org/licenses/gpl-3.0.txt), as you like.

DOCUMENTATION = r"""
module: vcpu_channel
short_description: Gives libvirt domains the channel of vcpuctl's guest agent
version_added: "0.1.0"
author:
  - vcpuctl maintainers (@vcpuctl)
description:
  - Gives domains of a libvirt the channel C(org.vcpuctl.agent.0) where they lack it. By it vcpuctl reaches its agent
    vcpud in the guest. A running domain gets it without a restart if libvirt can do that.
requirements:
  - vcpuctl on the managed host (the role vcpuctl.vcpu.vcpu_host installs it)
  - libvirt's Python module there (that role installs it if any of its I(vcpu_host_vms) is a domain, or if
    I(vcpu_host_libvirt) says so)
  - Python 3.6 or newer for Ansible's own interpreter there
options:
  domains:
    description:
      - The domains, by their names or UUIDs.
    type: list
    elements: str
    required: true
  libvirt:
    description:
      - The URI of the libvirt.
    type: str
    default: qemu:///system
  fail_on:
    description:
      - The outcomes of a domain that make the task fail.
      - C(partial) is a running domain that gets the channel at its next start only.
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
    description: Says which domains lack the channel. Whether libvirt can add it without a restart only libvirt knows.
  diff_mode:
    support: none
    description: The element is in the result.
  platform:
    support: full
    platforms: posix
    description: The hosts that vcpuctl runs on.
"""

EXAMPLES = r"""
- name: Give all domains of this host the channel of the agent
  vcpuctl.vcpu.vcpu_channel:
    domains: [web1, db1]
    fail_on: [failed, refused, unknown, unreachable, usage]
  register: channels

- name: Say which of them have to be started anew
  ansible.builtin.debug:
    var: channels.outcomes.partial
  when: channels.outcomes.partial is defined
"""

RETURN = r"""
domains:
  description: What became of each domain, by the name that it was given here.
  returned: always
  type: dict
  contains:
    outcome:
      description:
        - C(done), C(partial), C(failed), C(refused), C(unreachable), C(unknown) or C(usage); in check mode C(planned).
      type: str
    exit_status:
      description: vcpuctl's exit status.
      type: int
    changed:
      description: Whether the channel was added, or may have been. In check mode, whether it would be.
      type: bool
    running:
      description: The domain as it runs (C(channel), C(added), C(reason)); null if it is off.
      type: dict
    persistent:
      description: The definition from which it starts, likewise; null if it has none.
      type: dict
    channel_xml:
      description: The element that the domain's devices need.
      type: str
    reasons:
      description: Why the channel was not added; the fields are those of M(vcpuctl.vcpu.vcpu_scale)'s reasons.
      type: list
      elements: dict
outcomes:
  description: The names by their outcomes.
  returned: always
  type: dict
"""

from typing import Dict

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.vcpuctl.vcpu.plugins.module_utils import documents
from ansible_collections.vcpuctl.vcpu.plugins.module_utils.command import Vcpuctl, common_arguments


def main() -> None:
    shortfalls = list(documents.SHORTFALLS)
    module = AnsibleModule(
        argument_spec=dict(
            common_arguments(),
            domains=dict(type="list", elements="str", required=True),
            libvirt=dict(type="str", default="qemu:///system"),
            fail_on=dict(type="list", elements="str", choices=shortfalls, default=shortfalls),
        ),
        supports_check_mode=True,
    )
    vcpuctl = Vcpuctl(module)
    results: Dict[str, documents.Document] = {}
    for name in dict.fromkeys(module.params["domains"]):
        # One word each: a name may begin with a dash.
        words = ["--connect=" + module.params["libvirt"], "--domain=" + name, "channel"]
        document, status = vcpuctl.ask(words if module.check_mode else [*words, "--apply"])
        if "error" in document:
            results[name] = documents.lost(document["error"], status)
        else:
            results[name] = (documents.to_be_added if module.check_mode else documents.added)(document, status)
    ended = dict(
        changed=any(result["changed"] for result in results.values()),
        domains=results,
        outcomes=documents.by_outcome(results),
    )
    short = documents.failing(results, module.params["fail_on"])
    if short:
        module.fail_json(msg=documents.complaint(results, short), **ended)
    module.exit_json(**ended)


if __name__ == "__main__":
    main()
