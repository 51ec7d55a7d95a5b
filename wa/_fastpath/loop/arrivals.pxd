# cython: language_level=3
"""Contract of what the bus brings: messages of other workers go to custody, session and the cold path."""
from wa._fastpath.bus.contract cimport BusReceiver
from wa._fastpath.state.core cimport Core

cdef BusReceiver arrivals(Core* w) noexcept nogil
