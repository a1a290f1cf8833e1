# SPDX-License-Identifier: Apache-2.0
"""What both ends of vcpuctl agree on byte for byte: the gRPC contract and the framed link."""
