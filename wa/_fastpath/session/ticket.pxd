# cython: language_level=3
"""Contract of resumption tickets: what a device comes back with instead of a full handshake.

A ticket is sealed under the key that all workers of one server have.  Its owner keeps nothing but the serial of the
device's one outstanding ticket (`Device.ticket_serial`), so a ticket is good once, and never after a newer one.
"""
from libc.stdint cimport uint32_t, uint8_t
from wa._fastpath.state.core cimport Conn, Core, Device

cdef enum:
    TICKET_GOOD = 0               # `Pending.hs` has read the client's message and is to be answered
    TICKET_ELSEWHERE = 1          # `Conn.address` is another worker's: it decides
    TICKET_REFUSED = -1           # nothing has happened; the client may go on with IK
    TICKET_MALFORMED = -2

cdef int ticket_first(Core* w, Conn* c, const uint8_t* content, uint32_t n) noexcept nogil
# Judges a ticket record: no Diffie-Hellman, no effect on the device.  It may be a replay.

cdef bint ticket_use(Core* w, Conn* c) noexcept nogil
# The first record of a resumed connection opened, so its peer knows the psk: uses the ticket up.  False when it was
# used up, superseded or forgotten meanwhile.

cdef void ticket_issue(Core* w, Conn* c, Device* d) noexcept nogil
# Sends a fresh ticket; an earlier one of the device is void from here on.  Nothing when tickets are off.
