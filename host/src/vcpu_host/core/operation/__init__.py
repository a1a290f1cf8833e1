# SPDX-License-Identifier: Apache-2.0
"""One operation on one VM, as a state machine: observations in, actions out, the time an argument."""
