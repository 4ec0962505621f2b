"""Simulated transfers are long; what they draw must not change from run to run."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile(
    "plan",
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
