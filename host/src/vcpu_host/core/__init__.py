# SPDX-License-Identifier: Apache-2.0
"""The pure core: values in, decisions out."""
