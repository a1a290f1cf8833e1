# SPDX-License-Identifier: Apache-2.0
"""The agent adapter: link session and gRPC client."""
