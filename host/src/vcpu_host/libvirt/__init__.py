# SPDX-License-Identifier: Apache-2.0
"""VMs that libvirt owns, on this host and on others: libvirt is asked for whatever changes them.

``binding`` is the only module that imports libvirt's own.
"""
