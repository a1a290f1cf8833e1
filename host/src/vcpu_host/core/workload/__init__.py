# SPDX-License-Identifier: Apache-2.0
"""What programs of the guest make of its CPUs: what the agent says of it, and what follows for an operation."""
