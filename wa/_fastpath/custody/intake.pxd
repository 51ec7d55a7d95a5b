# cython: language_level=3
"""Contract of intake: an envelope comes from a sender, and the worker of its recipient takes custody (rules 1, 5, 7).

          from a sender's connection                    from the bus
          send_from -------- other owner: bus ----------> take_envelope
              \\------------- our own -------------------> take_envelope
    take_envelope -> connected, nothing waits:  into flight, LINGER (linger.pxd)
                  -> else:                      PUT into the batch; told accepted when it is done (commits.pxd)
"""
from libc.stdint cimport uint32_t, uint8_t
from wa._fastpath.bus.messages cimport BusEnvelope
from wa._fastpath.state.core cimport Conn, Core
from wa._fastpath.wire.frames cimport Frame

cdef void send_from(Core* w, Conn* c, const Frame* f) noexcept nogil
cdef void take_envelope(Core* w, const BusEnvelope* v, const uint8_t* body, uint32_t n) noexcept nogil
