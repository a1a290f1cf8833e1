# SPDX-License-Identifier: Apache-2.0
"""Decides what an operation will do, before anything is done: pure functions of a view and a request."""
