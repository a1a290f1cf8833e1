# SPDX-License-Identifier: Apache-2.0
"""Hosts of libvirt, their domains, and libvirt's Python module for the tests."""
