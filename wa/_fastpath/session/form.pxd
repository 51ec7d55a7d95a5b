# cython: language_level=3
"""Contract of the serialised form of a connection: explicit bytes with a version, docs/upgrade.md has them.

The hand-over between workers sends it beside the descriptor.  Not its concern: the descriptor, and what the new owner
does with the connection.
"""
from libc.stdint cimport uint16_t, uint32_t, uint64_t, uint8_t
from wa._fastpath.noise.noise cimport NoiseTransport
from wa._fastpath.os.poller cimport PeerName
from wa._fastpath.state.core cimport Conn, Core

cdef enum:
    FORM_VERSION = 1
    FORM_FIXED_BYTES_MAX = 224    # all but the input

    FORM_E_MAGIC = -1             # no connection at all
    FORM_E_VERSION = -2
    FORM_E_LENGTH = -3            # cut short, or bytes behind the end
    FORM_E_SECTION = -4           # unknown, twice, out of order, or missing for this state
    FORM_E_VALUE = -5             # a field that no connection has, by itself or beside the others

ctypedef struct ConnForm:         # what the bytes say
    uint8_t state                 # CONN_HANDSHAKE, CLAIMED, REGISTERING or LIVE
    uint8_t suite
    uint8_t requests_open
    uint8_t asked                 # FLAG_ASKED
    uint16_t outstanding
    uint32_t seq_next
    uint64_t address
    uint64_t heard_age_s
    NoiseTransport noise          # from CLAIMED on
    uint8_t intent                # these until it is live
    uint8_t hello[8]
    uint8_t static_key[32]
    PeerName peer
    uint64_t started_age_ms
    const uint8_t* input          # bytes read and not consumed: behind the form, they are not copied
    uint32_t input_n

cdef void form_of(const Core* w, const Conn* c, ConnForm* f) noexcept nogil    # without input
cdef void form_apply(const Core* w, const ConnForm* f, Conn* c) noexcept nogil
# to a fresh one; state and flags are the caller's
# All but the input bytes, which follow: the total length counts them.  Bytes written, at most FORM_FIXED_BYTES_MAX.
cdef uint32_t form_write(const ConnForm* f, uint8_t* out) noexcept nogil
cdef int form_read(const uint8_t* p, uint32_t n, ConnForm* f) noexcept nogil   # 0, or FORM_E_*; `input` points into p
