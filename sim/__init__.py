"""Deterministic simulation of the delivery code: real loops, one seed, one history, and checkers over it.

    python -m sim run --seed 1 --runs 1000        seeds 1..1000
    python -m sim show 17                          one seed, its history as a person reads it
    python -m sim controls                         the negative controls: each must be caught

What runs is the compiled `wa._fastpath.loop.Loop` with everything below it.  What is simulated is the machine: network,
clocks, randomness and disk.  The parts:

    settings   what a seed decides before the run
    world      the scheduler: workers, disks, clients, agenda
    worker     one server process, and its cold path
    line       the wire of one client connection
    device     a client with a durable store
    faults     what goes wrong, and when
    ledger     what everybody was told, and the checkers
    history    every event, readable, hashable
    runner     many seeds over many processes
    controls   the negative controls
"""

import os
import sys


def _remember_curve_arithmetic() -> None:
    """Half of a simulation would be X25519 over the same keys; see wa/_fastpath/sim_dh.pyx.

    It has to come before the Noise layer is loaded.  Where that is too late, seeds run the same, only slower.
    """
    flags = sys.getdlopenflags()
    sys.setdlopenflags(flags | os.RTLD_GLOBAL)
    try:
        import wa._fastpath.sim_dh  # noqa: F401, PLC0415
    finally:
        sys.setdlopenflags(flags)


if "wa._fastpath.noise" not in sys.modules:
    _remember_curve_arithmetic()
