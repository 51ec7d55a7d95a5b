# cython: language_level=3
"""Contract of the states of an entry.  `entry_to` is the one place that changes one, `entry_end` the one that ends it.

    NEW ── live ──► LINGER ── window over ──► COMMITTING ── fsync ──► STORED ── ack ──► DELETING ── row gone ──► end
     │                │  │ no memory              │  │ disk refused      │ expired
     │               ack └────────────┐          ack └────────┐          │
     │                ▼               ▼           ▼           ▼          ▼
     │               end           REFUSED     DELETING    REFUSED    REFUSED ── ack, or the connection ends ──► end
     ├── drain ─────► STORED
     ├── receipt ───► RECEIPT ── ack, or the connection ends ──► end
     └── make room ─► DROPPING ── the store has answered ──► end

Counts.  An entry in LINGER, COMMITTING, STORED or REFUSED is one of its device's `held`, one in DELETING is one of its
`undeleted`, one in DROPPING is neither; receipts are not counted.
"""
from libc.stdint cimport uint8_t
from wa._fastpath.state.core cimport Core, Entry

cdef enum EntryState:
    ENTRY_NEW = 0                 # as entry_new gives it
    ENTRY_LINGER = 0x31           # in flight, in memory only
    ENTRY_COMMITTING = 0x32       # on its way to disk
    ENTRY_STORED = 0x33           # in the mailbox, in flight
    ENTRY_REFUSED = 0x34          # in flight and in no mailbox; its sender was told that it was refused, or expired
    ENTRY_RECEIPT = 0x35          # a stored receipt in flight
    ENTRY_DELETING = 0x36         # acknowledged; kept until its row is gone, so that nothing takes the row for a new
                                  # one
    ENTRY_DROPPING = 0x37         # making room: out of `held`, its row is on the way out
    ENTRY_ENDED = 0x38            # out of every table

cdef void entry_to(Core* w, Entry* e, uint8_t state) noexcept nogil
cdef void entry_end(Core* w, Entry* e) noexcept nogil                     # out of every table, memory given back
cdef void entry_drop_body(Core* w, Entry* e) noexcept nogil  # its bytes are elsewhere, or not needed any more
