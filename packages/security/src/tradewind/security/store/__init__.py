# SPDX-License-Identifier: Apache-2.0
"""What administrators and logins write: users, teams, bindings, API tokens and sessions, in Airflow's database.

Reading for authorization goes through `directory.Directory`, which answers from memory.
"""

__all__: list[str] = []
