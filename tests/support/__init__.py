# SPDX-License-Identifier: Apache-2.0
"""Real servers and real Airflow processes for tests that cross components."""
