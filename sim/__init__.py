"""Deterministic simulation of the delivery code: real loops, one seed, one history, and checkers over it.

    python -m sim run --seed 1 --runs 1000        seeds 1..1000
    python -m sim show 17                          one seed and its history
    python -m sim controls                         the negative controls: each must be caught

The code is real: the compiled `wa._fastpath.loop.loop.Loop` and everything below it.  The machine is simulated:
network, clocks, randomness and disk.  The parts:

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
    quick      caches curve arithmetic, half of a run's time
    _native    the simulated machine: network, poller, agenda, store
"""
