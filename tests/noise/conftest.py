"""Every Noise test runs on the compiled handshake and on its Python twin, with both suites."""

import pytest
from noise_harness import BACKENDS, NO_AES, Backend

from wa.noise.patterns import Suite
from wa.noise.primitives import aes_is_fast


@pytest.fixture(params=list(BACKENDS))
def backend(request: pytest.FixtureRequest) -> Backend:
    return BACKENDS[request.param]


@pytest.fixture(params=list(BACKENDS))
def other_backend(request: pytest.FixtureRequest) -> Backend:
    """The opposite side's, so that each meets the other."""
    return BACKENDS[request.param]


@pytest.fixture(params=list(Suite), ids=lambda suite: suite.name)
def suite(request: pytest.FixtureRequest) -> Suite:
    used = [
        request.getfixturevalue(name) for name in ("backend", "other_backend") if name in request.fixturenames
    ]
    # A test that names no backend compares the two, so it needs the compiled one.
    if request.param is Suite.AESGCM and not aes_is_fast() and (BACKENDS["fast"] in used or not used):
        pytest.skip(NO_AES)
    return Suite(request.param)
