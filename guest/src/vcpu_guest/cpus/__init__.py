# SPDX-License-Identifier: Apache-2.0
"""The guest's CPUs: the inventory of them, and the one writer that switches them."""
