# SPDX-License-Identifier: Apache-2.0
"""Every JSON route against its own description, with requests that Schemathesis makes up."""

from __future__ import annotations

from api_fixtures import POLICY, airflow_app, airflow_with_ours, server
from hypothesis import HealthCheck, Phase, given, settings

__all__ = ["airflow_app", "airflow_with_ours", "server"]

# What a description can't say: which names exist, and what earlier requests have changed.
LEFT_OUT = {"positive_data_acceptance", "use_after_free", "ensure_resource_availability"}


def test_every_answer_is_one_that_the_description_names(server):
    import schemathesis
    from schemathesis.checks import CHECKS

    server.write_policy(POLICY + "bindings: [{user: owner, role: org_owner, scope: organization/acme}]\n")
    server.user("owner")
    headers = {"Authorization": server.with_token("owner", ["*:*"]).headers["Authorization"]}
    schema = schemathesis.openapi.from_asgi("/auth/openapi.json", server.app, headers=headers)
    schema.config.update(base_url="http://testserver/auth", headers=headers)
    checks = [check for check in CHECKS.get_all() if check.__name__ not in LEFT_OUT]
    seen = set()
    for result in schema.get_all_operations():
        operation = result.ok()

        @given(case=operation.as_strategy())
        @settings(
            max_examples=20,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        def answer(case):
            seen.add((case.method, case.path))
            case.call_and_validate(checks=checks, headers=headers)

        answer()
    assert len(seen) >= 20
