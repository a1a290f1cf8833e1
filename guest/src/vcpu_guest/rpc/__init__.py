# SPDX-License-Identifier: Apache-2.0
"""The gRPC side: the service, its control stream, and the server."""
