"""What every test shares: hypothesis profiles, and child processes that import this checkout."""

import os
from pathlib import Path

import hypothesis

CHECKOUT = Path(__file__).parent.parent

# A test that starts `python -m wa...` in some other directory must run the debug build that lies here, not the
# release build that may be installed beside it.
os.environ["PYTHONPATH"] = str(CHECKOUT)

# No deadlines: the tests judge results, never speed.
hypothesis.settings.register_profile("default", deadline=None)
hypothesis.settings.register_profile(
    "fuzz",
    deadline=None,
    max_examples=int(os.environ.get("WA_FUZZ_EXAMPLES", "5000")),
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("default")
