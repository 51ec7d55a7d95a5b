# cython: language_level=3
# COLD: once in the life of a worker.
"""Making and freeing a worker's state; see loop/worker.pxd, and state/core.pxd for what it holds."""
from libc.stdint cimport uint32_t, uint64_t, uint8_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy
from wa._fastpath.base.bounds cimport SHARDS
from wa._fastpath.base.slab cimport slab_destroy, slab_give, slab_init
from wa._fastpath.base.sodium cimport crypto_scalarmult_base, sodium_init, sodium_memzero
from wa._fastpath.base.timers cimport wheel_init
from wa._fastpath.bus.messages cimport bus_layout
from wa._fastpath.bus.unix cimport unix_bus_new, unix_bytes_max
from wa._fastpath.conn.conntable cimport conn_at, conntable_destroy, conntable_init
from wa._fastpath.custody.drain cimport drain_end
from wa._fastpath.custody.entries cimport custody_destroy, custody_init
from wa._fastpath.custody.reports cimport reports_wait
from wa._fastpath.loop.arrivals cimport arrivals
from wa._fastpath.mailbox.contract cimport batch_free
from wa._fastpath.session.lifecycle cimport conn_end
from wa._fastpath.state.addresses cimport addresses_destroy
from wa._fastpath.state.core cimport (
    Conn, CONN_FREE, Core, Device, Entry, HELD_MAX, KINDS_N, NONE_INDEX, READ_CHUNK_BYTES, RECORD_BYTES_MAX,
)
from wa._fastpath.state.directory cimport directory_destroy, directory_find, directory_init
from wa._fastpath.state.route cimport owner_of

from wa import limits
from wa.errors import LocalError
from wa.wire.methods import RETENTION_S, Kind

cdef enum:
    ARENA_BYTES = 262144
    SLAB_LIMIT_MIB = 4096
    SLAB_CACHED_BYTES = 16 << 20

# Bounds of the core <- names in wa.limits.  The lower-case limit name is the override's name.
BOUNDS = {
    "handshake_step_ms": "HANDSHAKE_STEP_MS_MAX",
    "authenticate_ms": "AUTHENTICATE_MS_MAX",
    "idle_ms": "IDLE_MS_MAX",
    "close_flush_ms": "CLOSE_FLUSH_MS_MAX",
    "linger_ms": "LINGER_MS",
    "resend_after_ms": "RESEND_AFTER_MS",
    "resends": "RESENDS_MAX",
    "window": "DELIVERY_WINDOW_MAX",
    "window_bytes": "DELIVERY_WINDOW_BYTES_MAX",
    "sender_window": "SENDER_WINDOW_MAX",
    "prune": "OVERFLOW_PRUNE",
    "mailbox": "MAILBOX_ENVELOPES_MAX",
    "output_bytes": "OUTPUT_BYTES_MAX",
    "bus_bytes": "BUS_BUFFER_BYTES_MAX",
    "batch_bytes": "BATCH_BYTES_MAX",
    "half_open": "HALF_OPEN_MAX",
    "handshakes_per_turn": "HANDSHAKES_PER_TURN_MAX",
    "handshakes_per_s": "HANDSHAKES_PER_S_MAX",
    "handshakes_per_address_per_s": "HANDSHAKES_PER_ADDRESS_PER_S_MAX",
    "accepts_per_turn": "ACCEPTS_PER_TURN_MAX",
    "request_bytes": "REQUEST_BODY_BYTES_MAX",
    "body_bytes": "ENVELOPE_BODY_BYTES_MAX",
    "ticket_lifetime_s": "TICKET_LIFETIME_S",
    "connections": "CONNECTIONS_PER_WORKER_MAX",
    "call_wake_again_ms": "CALL_WAKE_AGAIN_MS",
}


cdef Core* core_new(Poller* poller, int worker, int workers) except NULL:
    if sodium_init() < 0:
        raise LocalError("libsodium cannot be initialised: no source of randomness")
    if not 0 <= worker < workers:
        raise LocalError(f"there is no worker {worker} of {workers}")
    cdef Core* w = <Core*>calloc(1, sizeof(Core))
    if w == NULL:
        raise MemoryError
    w.poller = poller
    w.worker, w.workers = worker, workers
    w.dirty_head = w.drain_head = w.resume_head = NONE_INDEX
    w.listener = -1
    w.bus = unix_bus_new(poller, worker, workers, bus_layout(), limits.BUS_BUFFER_BYTES_MAX)
    w.read_buf = <uint8_t*>malloc(READ_CHUNK_BYTES)
    w.seal_buf = <uint8_t*>malloc(RECORD_BYTES_MAX)
    w.arena_n = ARENA_BYTES
    w.arena = <uint8_t*>malloc(ARENA_BYTES)
    if (w.read_buf == NULL or w.seal_buf == NULL or w.arena == NULL or w.bus == NULL
            or conntable_init(&w.conns) != 0 or directory_init(&w.directory) != 0
            or custody_init(&w.custody) != 0):
        core_free(w)
        raise MemoryError
    w.bus.receiver = arrivals(w)
    slab_init(&w.slab, <uint64_t>SLAB_LIMIT_MIB << 20, SLAB_CACHED_BYTES)
    core_clock(w)
    wheel_init(&w.wheel, w.now_ms)
    return w


cdef void drop_connection(Core* w, Conn* c) noexcept nogil:
    """Without the care of session/lifecycle.pyx: the loop did not run to its end, and nobody is told anything any more.
    """
    if c.active != NULL:
        c.active.inflight_n = 0
        drain_end(w, c)
    conn_end(w, c)


cdef void drop_bodies(Core* w) noexcept nogil:
    cdef Entry* e
    cdef uint64_t i
    if w.custody.buckets == NULL:
        return
    for i in range(w.custody.mask + 1):
        e = w.custody.buckets[i]
        while e != NULL:
            if e.body != NULL:
                slab_give(&w.slab, e.body, e.body_capacity)
                e.body = NULL
            e = e.hash_next


cdef void core_free(Core* w) noexcept:
    cdef uint32_t i
    for i in range(w.conns.chunks_n * 1024):
        if conn_at(&w.conns, i).state != CONN_FREE:
            drop_connection(w, conn_at(&w.conns, i))
    drop_bodies(w)
    if w.bus != NULL:
        w.bus.destroy(w.bus)
    if w.batch != NULL:
        batch_free(w.batch)
    for i in range(w.cold_n):
        free(w.cold[i].body)
    free(w.cold)
    conntable_destroy(&w.conns)
    directory_destroy(&w.directory)
    addresses_destroy(&w.reports)
    addresses_destroy(&w.formers)
    custody_destroy(&w.custody)
    slab_destroy(&w.slab)
    free(w.read_buf)
    free(w.seal_buf)
    free(w.arena)
    w.poller.destroy(w.poller)
    sodium_memzero(w, sizeof(Core))
    free(w)


cdef int core_identity(Core* w, bytes static_private, bytes certificate) except -1:
    if len(static_private) != 32 or not 0 < len(certificate) <= 128:
        raise LocalError("a Loop needs a 32-byte static key and a certificate of at most 128 bytes")
    memcpy(w.static_private, <const char*>static_private, 32)
    crypto_scalarmult_base(w.static_public, w.static_private)
    memcpy(w.certificate, <const char*>certificate, len(certificate))
    w.certificate_n = <uint32_t>len(certificate)
    w.poller.random(w.poller, w.key_secret, sizeof(w.key_secret))
    return 0


cdef int core_tickets(Core* w, bytes ticket_key) except -1:
    if ticket_key is None:
        return 0
    if len(ticket_key) != 32:
        raise LocalError("a ticket key is 32 bytes")
    memcpy(w.ticket_key, <const char*>ticket_key, 32)
    w.has_tickets = 1
    w.poller.random(w.poller, <uint8_t*>&w.ticket_epoch, sizeof(w.ticket_epoch))
    return 0


cdef int core_bounds(Core* w, dict overrides) except -1:
    """Raises LocalError for a name that is no bound, or a value that cannot be."""
    values = {field: getattr(limits, name) for field, name in BOUNDS.items()}
    for name, value in overrides.items():
        field = next((f for f, limit in BOUNDS.items() if limit.lower() == name), None)
        if field is None or not isinstance(value, int) or value < 0:
            raise LocalError(f"no bound {name!r} with a value like {value!r}")
        values[field] = value
    if not 0 < values["window"] <= limits.DELIVERY_WINDOW_MAX:
        raise LocalError(f"delivery_window_max is 1..{limits.DELIVERY_WINDOW_MAX}")
    if not 0 < values["mailbox"] <= HELD_MAX:
        raise LocalError(f"mailbox_envelopes_max is 1..{HELD_MAX}")
    values["retention_s"] = [RETENTION_S[Kind(k)] for k in range(KINDS_N)]
    w.bounds = values
    unix_bytes_max(w.bus, w.bounds.bus_bytes)
    return 0


cdef int core_owners(Core* w, object owners) except -1:
    """The worker of each shard.  Raises LocalError unless each is a worker, and each shard has one."""
    if owners is None:
        owners = [shard % w.workers for shard in range(SHARDS)]    # as data directories are laid out:
                                                                   # wa/routing/shards.py
    if len(owners) != SHARDS or not all(isinstance(k, int) and 0 <= k < w.workers for k in owners):
        raise LocalError(f"a table of owners names one of {w.workers} workers for each of {SHARDS} shards")
    for shard, owner in enumerate(owners):
        w.owners[<uint32_t>shard] = owner
    return 0


cdef void core_clock(Core* w) noexcept nogil:
    w.now_ms = w.poller.now_ns(w.poller) // 1000000
    w.wall_ms = w.poller.wall_ms(w.poller)


cdef void count_one(void* context, uint64_t recipient, uint8_t priority, uint64_t seq) noexcept nogil:
    cdef Core* w = <Core*>context
    cdef Device* d = directory_find(&w.directory, recipient)
    if d != NULL and d.held < HELD_MAX:
        d.held += 1
    if seq > w.mail_seq:
        w.mail_seq = seq


cdef void note_receipts(void* context, uint64_t owner, uint8_t level, uint64_t zero) noexcept nogil:
    cdef Core* w = <Core*>context
    cdef Device* d = directory_find(&w.directory, owner)
    if d != NULL:
        d.has_receipts = 1
    elif owner_of(w, owner) != w.worker:
        reports_wait(w, owner)            # a report that its worker did not confirm before we ended


cdef int core_census(Core* w) noexcept nogil:
    cdef int status
    # Places in mailboxes ascend across restarts even when everything was delivered in between.
    w.mail_seq = w.wall_ms << 16
    status = w.store.census(w.store, count_one, w)
    if status >= 0:
        status = w.store.receipt_census(w.store, note_receipts, w)
    return status
