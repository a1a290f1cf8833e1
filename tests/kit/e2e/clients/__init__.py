# SPDX-License-Identifier: Apache-2.0
"""Programs that tests run beside the product, each as a process of its own."""
