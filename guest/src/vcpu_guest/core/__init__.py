# SPDX-License-Identifier: Apache-2.0
"""The pure part of the agent: no file, clock, thread, asyncio or gRPC in here."""
