# cython: language_level=3
"""The state of one worker: plain C structs, no module-level variables, so that one process can hold many.

Who owns what: `Core` owns everything.  A `Conn` is small (an idle one is all there is); what a connection needs
only while bytes are moving or deliveries are unacknowledged hangs off it in an `Active` and goes back to the slab
when it is quiet; what it needs only until it is live hangs off it in a `Pending`.
"""
from libc.stdint cimport int32_t, uint16_t, uint32_t, uint64_t, uint8_t
from wa._fastpath.base.bounds cimport DELIVERY_WINDOW_MAX, SHARDS
from wa._fastpath.base.envelope cimport Envelope
from wa._fastpath.base.slab cimport Slab
from wa._fastpath.base.timers cimport Timer, TimerWheel
from wa._fastpath.bus.contract cimport Bus
from wa._fastpath.mailbox.contract cimport MailRow, MailStore, StoreBatch
from wa._fastpath.noise.noise cimport NoiseHandshake, NoiseTransport
from wa._fastpath.os.poller cimport PeerName, Poller, PollEvent
from wa._fastpath.state.addresses cimport Addresses

cdef enum:
    NONE_INDEX = 0xffffffff
    PRIORITIES_N = 5              # priority classes, highest first: 100, 50, 30, 10, 5
    KINDS_N = 9
    READ_CHUNK_BYTES = 131072     # one read; never more than a slab buffer, so a rest can always be kept
    RECORD_BYTES_MAX = 65539      # length prefix and the longest Noise message
    EVENTS_MAX = 1024
    HELD_MAX = 2047               # of the bit fields of Device; over limits.MAILBOX_ENVELOPES_MAX
    KEY_TAG_BYTES = 16            # see session/binding.pxd
    TOKEN_LISTENER = 1            # high byte of an event token; 0: a connection; 2 to 4: bus/contract.pxd

cdef enum ConnState:
    CONN_FREE = 0
    CONN_HELLO = 1                # waiting for the 8-byte hello
    CONN_HANDSHAKE = 2
    CONN_CLAIMED = 3              # handshake done, at the owner, the registry has not answered yet; not read
    CONN_ADMITTED = 4             # the key is good; waiting for F_OPEN in the first transport record
    CONN_REGISTERING = 5
    CONN_LIVE = 6
    CONN_CLOSING = 7              # close frame on its way out; input is ignored

cdef enum ConnFlag:
    FLAG_PAUSED = 1               # not read: sender window full, or output backed up
    FLAG_WANT_WRITE = 2           # the socket did not take everything
    FLAG_DIRTY = 4                # on the dirty list of this turn
    FLAG_DRAIN = 8                # on the drain list
    FLAG_RESUME = 16              # on the resume list: a kept rest may be consumed again
    FLAG_DOOMED = 32              # close with `doom` at the flush
    FLAG_ASKED = 128              # a registering client has made a request: it may wait for its code
    FLAG_EOF = 64                 # the peer is gone: nothing can be sent

ctypedef struct Pending:          # until a connection is live
    NoiseHandshake hs
    uint8_t hello[8]
    uint8_t intent
    uint8_t messages              # handshake messages read
    uint8_t admitted              # counted against the budgets
    uint8_t ticket_refused        # this connection has had its one try
    uint8_t answer_due            # the first message of IK was read: `login` is what it says
    uint8_t login_n
    uint8_t[9] login
    uint32_t ticket_serial        # of the ticket that the first transport record will use up, 0 = none
    uint8_t static_key[32]        # the peer's, once the handshake is done
    uint8_t[KEY_TAG_BYTES] key_tag    # of the key that it was admitted for; set at the owner
    PeerName peer
    uint64_t started_ms
    Pending* wait_next            # in the queue of session/waiting.pxd, when `waits`
    Pending* wait_prev
    uint32_t conn                 # index of its connection while it waits
    uint8_t waits

ctypedef struct Entry:            # one envelope (or stored receipt) in custody or in flight here
    Entry* hash_next              # identity table; NULL for receipts
    Entry* older                  # linger queue
    Entry* newer
    Envelope env                  # a receipt: recipient = whom it waits for, sender = about whose device
    uint64_t mail_seq             # place in the mailbox
    uint64_t linger_until_ms
    uint64_t sent_ms              # last (re)send
    uint64_t undrained_on         # DROPPING: handle of the connection that its row is undrained on, 0: of none
    uint8_t* body                 # NULL once stored; env.body_n bytes
    uint32_t body_capacity
    uint32_t conn                 # index of the connection it is in flight on, or NONE_INDEX
    uint32_t seq                  # delivery number on that connection
    uint16_t code                 # receipts
    uint8_t level                 # receipts
    uint8_t state                 # custody/states.pxd
    uint8_t resends

ctypedef struct DrainState:       # while a connected device has a backlog
    uint64_t cursor[PRIORITIES_N] # last mailbox seq sent, per priority class
    uint64_t first                # mailbox seq from which on rows are counted in `undrained`
    uint64_t after_batch          # not before this batch is done (see custody/drain.pxd on order)
    uint64_t expired_ms           # since when rows are passed over because their time is over, 0 = none were
    uint64_t receipt_peer
    uint64_t receipt_id
    uint8_t receipts_left         # passes over the receipts to go

ctypedef struct Active:
    uint8_t* in_buf               # an incomplete record, or records kept while paused
    uint8_t* plain                # frames for the next record
    uint8_t* sealed               # bytes the socket has not taken yet
    Entry** ring                  # DELIVERY_WINDOW_MAX slots, slot = seq % DELIVERY_WINDOW_MAX; NULL when nothing is in
                                  # flight
    DrainState* drain
    uint64_t partial_since_ms     # since when in_buf holds an incomplete record
    uint64_t stalled_since_ms     # since when `sealed` has not moved, 0 = not stalled
    uint32_t in_n, in_capacity
    uint32_t plain_n, plain_capacity
    uint32_t sealed_n, sealed_at, sealed_capacity
    uint32_t seq_base             # oldest delivery number not acknowledged yet
    uint32_t inflight_n
    uint32_t inflight_bytes

ctypedef struct Conn:
    Timer timer                   # first: a due Timer* is its Conn*
    NoiseTransport noise
    uint64_t address
    Active* active
    Pending* pending
    int32_t fd
    uint32_t index
    uint32_t generation
    uint32_t dirty_next
    uint32_t drain_next
    uint32_t resume_next
    uint32_t seq_next             # next delivery number, from 1
    uint32_t heard_s              # monotonic seconds of the last record
    uint16_t outstanding          # envelopes sent and not yet answered
    uint16_t doom
    uint8_t requests_open
    uint8_t state
    uint8_t flags
    uint8_t suite

ctypedef struct ConnTable:
    Conn** chunks                 # of CONN_CHUNK each; a Conn never moves
    uint32_t chunks_n
    uint32_t free_head
    uint32_t live_n               # in use
    uint32_t half_open_n          # not yet live

cdef extern from *:
    """
    #include <stdint.h>
    #ifndef WA_DEVICE
    #define WA_DEVICE
    /* In C for its bit fields: there is one per registered device, and it must stay at 40 bytes. */
    typedef struct {
        uint64_t address;
        uint32_t conn;
        uint32_t ticket_serial;
        uint64_t held : 11, undrained : 11, undeleted : 11, has_receipts : 1, has_key : 1, has_former : 1,
                 woken_s : 28;
        uint8_t key_tag[16];
    } Device;
    #endif
    """
    ctypedef struct Device:       # one registered device of our shards
        uint64_t address          # 0 = empty slot
        uint32_t conn             # live connection or NONE_INDEX
        uint32_t ticket_serial    # of its one outstanding resumption ticket, 0 = none
        uint16_t held             # these three: custody/counts.pxd; at most HELD_MAX
        uint16_t undrained
        uint16_t undeleted
        uint8_t has_receipts
        uint8_t has_former        # another device was removed from this address: Core.formers
        uint8_t has_key           # key_tag is that of the registry's key; else only the registry knows it
        uint8_t[KEY_TAG_BYTES] key_tag
        uint32_t woken_s          # monotonic second, from 1, of the wake-up since it was online; 0 = none

ctypedef struct Directory:        # open addressing, linear probing; slots move when it grows
    Device* slots
    uint64_t slots_n
    uint64_t used

ctypedef struct Custody:
    Entry** buckets
    uint64_t mask
    uint64_t used
    Entry* free_list
    Entry* chunks                 # all memory of entries
    Entry* oldest                 # linger queue
    Entry* newest
    Entry* undeleted              # of those DELETING, what the disk refused; chained through `older`, tried again every
                                  # second
    uint64_t live                 # entries handed out
    uint64_t dropping             # of `deleting`: to make room
    uint64_t deleting             # of those: acknowledged, their rows on the way out; without bodies

cdef enum ColdType:
    COLD_LOGIN = 1
    COLD_REQUEST = 2
    COLD_PEER = 3
    COLD_GONE = 4
    COLD_WAKE = 5

ctypedef struct ColdEvent:
    uint8_t what
    uint8_t intent
    uint8_t has_key
    uint8_t static_key[32]
    PeerName peer
    uint32_t conn, generation
    uint32_t body_n
    uint64_t address
    uint32_t worker               # COLD_PEER: whose message
    uint64_t request_id
    uint64_t method
    uint8_t* body                 # malloc'ed

ctypedef struct Bounds:
    uint64_t handshake_step_ms, authenticate_ms, idle_ms, close_flush_ms
    uint64_t linger_ms, resend_after_ms, resends, window, window_bytes, sender_window
    uint64_t prune                # 1: a full mailbox gives up its lowest priority, oldest first
    uint64_t mailbox, output_bytes, bus_bytes, batch_bytes
    uint64_t half_open, handshakes_per_turn, handshakes_per_s, handshakes_per_address_per_s, accepts_per_turn
    uint64_t request_bytes, body_bytes, connections, call_wake_again_ms, ticket_lifetime_s
    uint64_t retention_s[KINDS_N]

ctypedef struct Stats:
    uint64_t accepts, sheds, handshakes, handshake_failures, logins, hand_overs_out, hand_overs_in, hand_overs_refused
    uint64_t resumptions, tickets_refused
    uint64_t records_in, records_out, frames_in, bytes_in, bytes_out, decrypt_failures, protocol_errors
    uint64_t envelopes_in, delivered_live, delivered_queued, stored, linger_commits, acknowledged, duplicates
    uint64_t refused, resends, unresponsive, receipts_live, receipts_stored, expired, dropped
    uint64_t batches, batch_ops, turns, cold_events
    uint64_t wakes
    uint64_t miscounts            # faults of ours that custody/counts.pxd caught; 0

ctypedef struct Core:
    Poller* poller
    MailStore* store
    Bounds bounds
    Stats stats
    Slab slab
    TimerWheel wheel
    ConnTable conns
    Directory directory
    Custody custody
    Addresses reports             # senders on other workers for whom receipts wait here; see custody/reports.pyx
    Addresses formers             # devices that were removed since the start; see custody/counts.pxd
    uint32_t reports_due_s        # monotonic; none of them is due before
    uint32_t worker, workers
    # time of this turn
    uint64_t now_ms
    uint64_t wall_ms
    # identity of the server
    uint8_t static_private[32]
    uint8_t static_public[32]
    uint8_t certificate[128]
    uint32_t certificate_n
    uint8_t key_secret[32]        # random; the tags of devices' keys are made under it
    uint8_t ticket_key[32]
    uint8_t has_tickets
    uint64_t ticket_epoch         # random; tickets of another one are void, since their serials may come again
    uint32_t ticket_serial        # last one given out in this epoch
    # per-turn lists, heads as indices into the connection table
    uint32_t dirty_head, drain_head, resume_head
    # cold events of this turn
    ColdEvent* cold
    uint32_t cold_n, cold_capacity
    # mailbox batches
    StoreBatch* batch             # being filled, or NULL
    uint64_t batch_no             # number of the batch being filled, from 1
    uint64_t batch_done_no        # every batch up to this one is done
    uint64_t batch_submitted_no
    uint64_t mail_seq             # last mailbox place given out
    # bus
    Bus* bus
    uint16_t owners[SHARDS]       # worker of each shard: state/route.pxd
    int32_t listener
    uint8_t listener_full         # out of descriptors: not watched until the next tick
    # admission
    uint64_t budget_second
    uint32_t budget_used
    uint32_t sheds_this_second
    uint32_t handshake_slots      # what may still be worked on in this turn: session/handshake.pxd, STEP_SLOTS
    Pending* waiting_first        # see session/waiting.pxd
    Pending* waiting_last
    uint32_t waiting_n
    uint64_t trimmed_bytes        # see loop/giveback.pyx; all that was ever given back to the heap, slab apart
    uint64_t heap_trimmed_at      # the whole sum when the heap was last gone through
    uint16_t address_budget[4096]
    void* trace                   # the ring of state/trace.pxd, or NULL
    # scratch
    PollEvent events[EVENTS_MAX]
    uint8_t* read_buf             # READ_CHUNK_BYTES
    uint8_t* seal_buf             # RECORD_BYTES_MAX
    uint8_t* arena                # bodies read back from the mailbox
    uint32_t arena_n
    MailRow rows[DELIVERY_WINDOW_MAX]
    MailRow receipt_rows[DELIVERY_WINDOW_MAX]  # and rows without bodies
