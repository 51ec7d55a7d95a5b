# cython: language_level=3
"""The state of a load generator, and the contract of its connections (line.pyx) with its traffic (fleet.pyx).

A `Line` is one client connection of one device.  It speaks the real protocol (IK handshake, sealed records, frames) to
the server, or, when the generator was given no server key, the floor's: the same records and frames after a hello that
only names the address.  An idle Line owns no buffer.

What arrives once, in order and complete is checked by streams: every body carries (stream, n), the n-th message of that
stream.  `sent` and `heard` hold the last n of each stream and live in memory that all generator processes share.
"""
from libc.stdint cimport int32_t, uint16_t, uint32_t, uint64_t, uint8_t
from bench._load.hist cimport Hist
from wa._fastpath.noise.noise cimport NoiseHandshake, NoiseTransport
from wa._fastpath.os.poller cimport Poller, PollEvent
from wa._fastpath.wire.frames cimport Frame

cdef enum:
    SLOTS_N = 256                 # envelopes a sender may have under way, by id modulo this
    OUTSTANDING_MAX = 64          # limits.SENDER_WINDOW_MAX: a server stops reading there
    EVENTS_N = 512
    READ_BYTES = 262144
    PLAIN_BYTES = 65519           # limits.RECORD_PLAIN_BYTES_MAX
    BODY_BYTES_MIN = 17           # sent_ns u64, stream u32, n u32, at least one byte of filling

cdef enum LineState:
    LINE_DOWN = 0
    LINE_CONNECTING = 1
    LINE_HANDSHAKE = 2
    LINE_OPENING = 3              # F_OPEN is out, F_READY is not here
    LINE_LIVE = 4
    LINE_WAITING = 5              # turned away with a time to come back at

ctypedef struct Slot:
    uint64_t id                   # 0 = free
    uint64_t sent_ns
    uint64_t recipient
    uint8_t accepted

ctypedef struct Sender:
    Slot slots[256]
    uint64_t next_id
    uint64_t* targets             # recipients, taken in turn
    uint32_t* streams             # beside them
    uint32_t targets_n, at
    uint32_t outstanding
    uint64_t left                 # messages it may still begin; UINT64_MAX = no bound

ctypedef struct Line:
    NoiseTransport noise
    NoiseHandshake* hs            # until the handshake is done
    Sender* sender                # of lines that send
    uint8_t* in_buf               # an incomplete record
    uint8_t* out                  # what the socket has not taken yet
    uint8_t* ticket               # psk and ticket to come back with, of a fleet that uses them
    uint64_t address
    uint64_t began_ns             # of this login, from the first attempt on
    uint64_t retry_at_ns
    uint32_t in_n
    uint32_t out_n, out_at, out_capacity
    uint32_t index
    uint32_t source               # IPv4 address to connect from, network order, 0 = any
    uint32_t seq_seen             # highest delivery number of this connection
    uint32_t said_s               # when it last sent something
    uint32_t mute_from            # the first delivery number that it keeps to itself; 0 = it acknowledges
    int32_t fd
    uint16_t key                  # index into the pool
    uint16_t ticket_n             # bytes, the psk included
    uint8_t state
    uint8_t tries

ctypedef struct Counts:           # since the generator was made
    uint64_t logins, login_failures, busy, retries, dropped, closes
    uint64_t sent, accepted, delivered, received
    uint64_t refused, resent, duplicates, gaps, bad_bodies, bad_receipts
    uint64_t bytes_in, bytes_out, records_in, records_out, pings
    uint64_t tickets, resumed, tickets_refused   # received and kept; logins by one; those that went on with IK
    uint64_t late                 # open loop: messages that found every window full

ctypedef struct Gen:
    Poller* poller
    Line** lines
    uint32_t lines_n, lines_capacity
    uint32_t live_n, pending_n, waiting_n
    uint64_t now_ns
    uint8_t suite                 # 0 = plain records (floor only), else NOISE_SUITE_*
    uint8_t is_floor
    uint8_t use_tickets
    uint8_t server_public[32]
    uint16_t port                 # network order
    uint32_t host                 # network order
    # pool of device keys
    uint8_t* key_private
    uint8_t* key_public
    uint32_t keys_n
    # traffic
    uint32_t body_bytes
    uint32_t window               # envelopes under way for each sender
    uint8_t one_tick              # 1: "accepted" is enough (the recipient is offline)
    uint8_t topping               # 1: a receipt makes room for the next envelope
    uint8_t receipts_stray        # 1: receipts of earlier runs may come (after an offline phase)
    uint64_t under_way
    uint32_t* stream_sent
    uint32_t* stream_heard
    uint64_t streams_n
    uint32_t last_close           # code of the last close or refusal heard
    Counts counts
    Hist to_recipient             # send -> in the recipient's hands
    Hist to_receipt               # send -> delivered receipt (one_tick: accepted)
    Hist login                    # first attempt -> ready
    # of the read that is being handled
    uint32_t ack_first, ack_n
    uint32_t plain_n
    PollEvent events[512]
    uint8_t read_buf[262144]
    uint8_t plain[65519]
    uint8_t record[65539]
    void (*on_frame)(Gen* g, Line* l, const Frame* f) noexcept nogil
    void (*on_batch)(Gen* g, Line* l) noexcept nogil           # after all frames of one read
