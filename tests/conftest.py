"""What all levels have in common: which tests stay together when workers run side by side (`--dist loadgroup`)."""

from hypothesis import HealthCheck, settings

from support.side_by_side import grouping

# How long an example takes says how busy the machine is, not whether the property holds.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
if settings.get_current_profile_name() == "default":
    settings.load_profile("any machine")

TOGETHER = {
    "tests/apiserver/alone/": "a control plane whose operator is stopped",
    "tests/apiserver/test_bench.py": "a control plane whose operator is stopped",
    "tests/apiserver/neighbours/": "a control plane with neighbours",
    "tests/apiserver/test_chart.py": "a control plane whose definitions are taken away",
    "tests/apiserver/test_manifests.py": "cluster-wide objects of the manifests",
    "tests/e2e/test_governed_model.py": "the sample",
    "tests/e2e/test_rollout.py": "a model that is rolled out",
    "tests/local/test_once.py": "the sample as it is run once",
    "tests/local/test_kill.py": "the sample as it is run once",
    "tests/local/test_openai_runtime.py": "a chat",
}
"""Beginning of a test's id → what it shares with the others of that group."""

pytest_xdist_make_scheduler = grouping(TOGETHER)
