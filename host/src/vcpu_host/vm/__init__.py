# SPDX-License-Identifier: Apache-2.0
"""The use cases of one VM, over the roles of ``ports``."""
