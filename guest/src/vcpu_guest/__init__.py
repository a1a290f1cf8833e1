# SPDX-License-Identifier: Apache-2.0
"""vcpud: the guest agent of vcpuctl."""
