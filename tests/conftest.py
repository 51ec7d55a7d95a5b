"""What every test shares: how hypothesis runs, and child processes that import this checkout."""

import os
from pathlib import Path

import hypothesis
import pytest

CHECKOUT = Path(__file__).parent.parent
FUZZ_EXAMPLES = int(os.environ.get("WA_FUZZ_EXAMPLES", "0"))  # `make fuzz` sets it

# A test that starts `python -m wa...` in some other directory must run the debug build that lies here,
# not the release build that may be installed beside it.
os.environ["PYTHONPATH"] = str(CHECKOUT)

# No deadlines: the tests judge results, never speed.
hypothesis.settings.register_profile("default", deadline=None)
hypothesis.settings.load_profile("default")


@pytest.hookimpl(trylast=True)  # after hypothesis has marked its tests
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """For `make fuzz`: raises the number of examples also where a test bounds it for everyday use."""
    for item in items:
        if FUZZ_EXAMPLES and isinstance(item, pytest.Function) and item.get_closest_marker("hypothesis"):
            more = {"max_examples": FUZZ_EXAMPLES, "suppress_health_check": [hypothesis.HealthCheck.too_slow]}
            if isinstance(getattr(item.cls, "settings", None), hypothesis.settings):  # a state machine
                item.cls.settings = hypothesis.settings(item.cls.settings, **more)
            else:
                test = getattr(item.obj, "__func__", item.obj)
                test._hypothesis_internal_use_settings = hypothesis.settings(
                    test._hypothesis_internal_use_settings, **more
                )
