"""Published test vectors; vectors.json names their source."""

import json
from pathlib import Path
from typing import Any

import pytest
from noise_harness import NO_AES, Backend

from wa.noise.patterns import Pattern, Suite, protocol_name
from wa.noise.primitives import public_key

VECTORS: list[dict[str, Any]] = json.loads(Path(__file__).with_name("vectors.json").read_text())["vectors"]
NAMES = {protocol_name(p, s).decode(): (p, s) for p in Pattern for s in Suite}


def test_every_offered_protocol_has_a_vector() -> None:
    offered = {protocol_name(p, s).decode() for p in (Pattern.XX, Pattern.IK, Pattern.NNPSK0) for s in Suite}
    assert {v["name"] for v in VECTORS} == offered


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: v["name"])
def test_vector(vector: dict[str, Any], backend: Backend) -> None:
    pattern, suite = NAMES[vector["name"]]
    if suite not in backend.suites:
        pytest.skip(NO_AES)
    value = {k: bytes.fromhex(vector[k]) for k in vector if k not in ("source", "name", "messages")}
    publics = [public_key(value[k]) if k in value else None for k in ("init_static", "resp_static")]
    sides = [
        backend.start(
            pattern,
            suite,
            initiator=True,
            prologue=value["prologue"],
            static_private=value.get("init_static"),
            remote_static=publics[1] if pattern is Pattern.IK else None,
            psk=value.get("psk"),
        ),
        backend.start(
            pattern,
            suite,
            initiator=False,
            prologue=value["prologue"],
            static_private=value.get("resp_static"),
            psk=value.get("psk"),
        ),
    ]
    ephemerals = [value["init_ephemeral"], value["resp_ephemeral"]]
    messages = [(bytes.fromhex(payload), bytes.fromhex(cipher)) for payload, cipher in vector["messages"]]
    step = 0
    while not sides[0].done:
        writer = step % 2
        payload, cipher = messages[step]
        assert sides[writer].write(payload, ephemeral=ephemerals[writer]) == cipher
        assert sides[1 - writer].read(cipher) == payload
        step += 1
    assert sides[0].hash == sides[1].hash == value["handshake_hash"]
    assert [sides[1].remote_static, sides[0].remote_static] == publics
    transports = [side.split() for side in sides]
    assert step < len(messages)
    for payload, cipher in messages[step:]:
        assert transports[step % 2].seal(payload) == cipher
        assert transports[1 - step % 2].open(cipher) == payload
        step += 1
