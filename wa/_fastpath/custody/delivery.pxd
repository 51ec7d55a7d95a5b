# cython: language_level=3
"""Contract of delivery: custody rules 1 to 6 and 8 of docs/semantics for one worker's recipients.

    from a sender's connection                       from the bus
          send_from -------- other owner: bus ----------> take_envelope
              \\------------- our own -------------------> take_envelope
    take_envelope -> live:   LINGER -- ack --> told delivered, never on disk
                              \\- linger over --> COMMITTING --> STORED (told accepted) -- ack --> DELETING
                  -> stored: PUT --> told accepted --> drain (custody/drain.pyx) --> STORED in flight -- ack --> DELETING
    DELETING: custody/deletion.pxd
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from wa._fastpath.bus.send cimport BusEnvelope
from wa._fastpath.state.core cimport Active, Conn, Core, Device, Entry
from wa._fastpath.wire.frames cimport Frame

cdef void send_from(Core* w, Conn* c, const Frame* f) noexcept nogil
cdef void take_envelope(Core* w, const BusEnvelope* v, const uint8_t* body, uint32_t n) noexcept nogil
cdef int acknowledge(Core* w, Conn* c, uint64_t first, uint64_t count) noexcept nogil    # -1: never sent
cdef void mark_read(Core* w, Conn* c, uint64_t sender, uint64_t id) noexcept nogil
cdef void linger_fire(Core* w) noexcept nogil
cdef void commit_entry(Core* w, Entry* e) noexcept nogil
cdef void entry_end(Core* w, Entry* e) noexcept nogil                     # out of every table, memory given back
cdef Entry** ring_of(Core* w, Conn* c) noexcept nogil                      # NULL = memory
cdef void put_in_flight(Core* w, Conn* c, Entry* e) noexcept nogil
cdef bint window_open(const Core* w, const Conn* c, uint32_t body_n) noexcept nogil
cdef void resend(Core* w, Conn* c) noexcept nogil
cdef void conn_timer(Core* w, Conn* c) noexcept nogil
