# SPDX-License-Identifier: Apache-2.0 OR GPL-3.0-or-later
# Apache License 2.0, or GNU General Public License v3.0 or later, as you like.
"""Runs vcpuctl for a module, and takes nothing from it but its exit status and its document."""

from typing import Any, Dict, List, NoReturn, Optional, Tuple

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.vcpuctl.vcpu.plugins.module_utils.documents import Document, DocumentError, parse, told

#: Where vcpuctl may be beside $PATH, which sudo and su cut short.
_PLACES = ["/usr/local/bin", "/opt/vcpuctl/bin"]


class Vcpuctl:
    """The command on this host, which ``module`` calls. What goes wrong with it as such ends the module."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        asked = module.params["executable"]
        found = module.get_bin_path(asked, opt_dirs=_PLACES)
        if found is None:
            module.fail_json(
                msg="{0} is not on this host: the role vcpuctl.vcpu.vcpu_host installs it".format(asked),
                exit_status=None,
            )
        self.path = found

    def ask(self, words: List[str], data: Optional[str] = None) -> Tuple[Document, int]:
        """Return the document and the exit status; the document may be an error's."""
        argv = [self.path, "-o", "json", *words]
        try:
            status, out, err = self.module.run_command(
                argv, data=data, handle_exceptions=False, expand_user_and_vars=False
            )
        except (OSError, IOError) as error:
            self._end("{0} cannot be run: {1}".format(self.path, error), exit_status=None)
        try:
            return parse(out, status), status
        except DocumentError as error:
            why = "{0} did not answer as vcpuctl does: {1}".format(self.path, error)
            self._end(why, exit_status=status, stdout=out, stderr=err)

    def ask_all(self, words: List[str], data: Optional[str] = None) -> Tuple[Document, int]:
        """Return a document that is not an error's, and the exit status. An error's document ends the module."""
        document, status = self.ask(words, data)
        if "error" in document:
            self.fail(document["error"], status)
        return document, status

    def fail(self, reason: Document, status: int) -> NoReturn:
        """End the module: vcpuctl refused the whole with this reason, and nothing was done."""
        self._end(told(reason), error=reason, exit_status=status)

    def _end(self, words: str, **result: Any) -> NoReturn:
        self.module.fail_json(msg=words, **result)
        raise SystemExit(1)  # fail_json has ended the process: for those who read types


def common_arguments() -> Dict[str, Any]:
    """Return the options that all modules have."""
    return dict(executable=dict(type="str", default="vcpuctl"))
