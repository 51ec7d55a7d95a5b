"""The handshake that logins are measured by is a real one: its client takes the answer, and both have the same keys."""

import pytest

from bench._load import bare
from wa.noise.backend import FAST, TWIN
from wa.noise.patterns import Suite


@pytest.mark.parametrize("suite", list(Suite), ids=lambda suite: suite.name)
def test_the_bare_handshake_is_a_handshake(suite: Suite) -> None:
    if suite not in (FAST or TWIN).suites:
        pytest.skip("no AES instructions")
    assert bare.handshake_s(suite, 3) > 0
