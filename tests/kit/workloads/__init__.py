# SPDX-License-Identifier: Apache-2.0
"""`make workloads`: runs programs on guests whose CPUs come and go, and writes the tables of docs/workloads.md."""
