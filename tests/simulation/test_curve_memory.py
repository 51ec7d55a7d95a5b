"""What a simulation remembers of curve arithmetic is what was computed; in a process of its own, loaded in order."""

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sim.quick
from sim._native import dh as sim_dh
from wa.noise.backend import FAST, TWIN
from wa.noise.patterns import Pattern, Suite

KEY, PEER = bytes(range(32)), bytes([9]) + bytes(31)   # one private key for all three; PEER is the base point

def first_message(backend):
    keys = {"static_private": KEY, "remote_static": PEER}
    return backend.start(Pattern.IK, Suite.CHACHA, initiator=True, prologue=b"", **keys).write(ephemeral=KEY)

computed, remembered = first_message(FAST), first_message(FAST)
assert computed == remembered == first_message(TWIN)
print(*sim_dh.counts())
"""


def test_each_product_is_remembered_as_itself() -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    remembered, computed = map(int, done.stdout.split())
    assert computed == 3, "of the base point, of its Edwards twin, and of PEER"
    assert remembered == 5, "PEER's second time in each message, and all else in the second"
