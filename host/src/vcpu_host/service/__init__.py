# SPDX-License-Identifier: Apache-2.0
"""The resident coordinator's parts: it holds VMs and offers them to others."""
