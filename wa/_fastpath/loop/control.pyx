# cython: language_level=3
# COLD: called by Python, a few times per request or login.
"""What the cold path asks for; see loop/control.pxd."""
from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t, uint8_t
from libc.string cimport memset
from wa._fastpath.base.bounds cimport REQUEST_BODY_BYTES_MAX
from wa._fastpath.base.codes cimport CODE_ADDRESS_UNKNOWN
from wa._fastpath.bus.messages cimport BUS_COLD
from wa._fastpath.conn.conntable cimport conn_at, conn_by_handle
from wa._fastpath.conn.output cimport out_frame
from wa._fastpath.custody.batches cimport batch_op, ends_with
from wa._fastpath.custody.entries cimport custody_find
from wa._fastpath.custody.states cimport ENTRY_DELETING
from wa._fastpath.mailbox.contract cimport MailRow, OP_PURGE, StoreOp
from wa._fastpath.session.binding cimport device_bind
from wa._fastpath.session.handshake cimport handshake_admit
from wa._fastpath.session.lifecycle cimport begin_close
from wa._fastpath.state.addresses cimport addresses_add, addresses_find, AddressSlot
from wa._fastpath.state.core cimport Conn, CONN_CLOSING, Core, Device, Entry, NONE_INDEX
from wa._fastpath.state.directory cimport directory_add, directory_find, directory_remove
from wa._fastpath.wire.frames cimport F_NOTICE, F_RESPONSE, Frame

from wa.errors import LocalError


# --- devices ------------------------------------------------------------------------------------------

cdef int device_add(Core* w, uint64_t address, bytes static_key) except -1:
    cdef Device* d
    if static_key is not None and len(static_key) != 32:
        raise LocalError("a static key has 32 bytes")
    d = directory_add(&w.directory, address)
    if d == NULL:
        raise MemoryError
    d.has_former = addresses_find(&w.formers, address) != NULL
    device_bind(w, d, NULL if static_key is None else <const uint8_t*><const char*>static_key)
    d.ticket_serial = 0               # it may have another key than before
    return 0


cdef int device_remove(Core* w, uint64_t address, uint16_t code) except -1:
    cdef Device* d = directory_find(&w.directory, address)
    cdef AddressSlot* former
    cdef StoreOp* op
    if d == NULL:
        return 0
    former = addresses_add(&w.formers, address)
    if former == NULL:
        raise MemoryError
    if d.conn != NONE_INDEX:
        begin_close(w, conn_at(&w.conns, d.conn), code, 0)
    former.seq = w.mail_seq           # all that came for it so far is purged, and no successor's
    op = batch_op(w, OP_PURGE, 0)
    if op == NULL:
        raise MemoryError
    op.env.recipient = address
    ends_with(w, op, CODE_ADDRESS_UNKNOWN)
    directory_remove(&w.directory, address)
    return 0


cdef bint device_is_connected(Core* w, uint64_t address) noexcept:
    cdef Device* d = directory_find(&w.directory, address)
    return d != NULL and d.conn != NONE_INDEX


cdef void device_wake_lost(Core* w, uint64_t address) noexcept:
    cdef Device* d = directory_find(&w.directory, address)
    if d != NULL:
        d.woken_s = 0


# --- connections and requests -------------------------------------------------------------------------

cdef bint conn_admit(Core* w, uint64_t conn, uint64_t address) noexcept:
    cdef Conn* c = conn_by_handle(&w.conns, conn)
    return c != NULL and handshake_admit(w, c, address) == 0


cdef bint conn_refuse(Core* w, uint64_t conn, uint16_t code, uint32_t retry_after_ms) noexcept:
    cdef Conn* c = conn_by_handle(&w.conns, conn)
    if c == NULL or c.state == CONN_CLOSING:
        return False
    begin_close(w, c, code, retry_after_ms)
    return True


cdef int request_answer(Core* w, uint64_t conn, uint64_t request_id, uint64_t status, bytes body) except -1:
    cdef Conn* c = conn_by_handle(&w.conns, conn)
    cdef Frame f
    if len(body) > REQUEST_BODY_BYTES_MAX:
        raise LocalError(f"a response of {len(body)} bytes does not fit one record")
    if c == NULL or c.state == CONN_CLOSING:
        return False
    if c.requests_open:               # 0: asked by a connection that was handed over since
        c.requests_open -= 1
    memset(&f, 0, sizeof(Frame))
    f.type = F_RESPONSE
    f.number = request_id
    f.extra = status
    f.body = <const uint8_t*><const char*>body
    f.body_n = <uint32_t>len(body)
    return out_frame(w, c, &f) == 0


cdef bint notice_send(Core* w, uint64_t address, uint64_t notice, bytes body) noexcept:
    cdef Device* d = directory_find(&w.directory, address)
    cdef Frame f
    if d == NULL or d.conn == NONE_INDEX or len(body) > REQUEST_BODY_BYTES_MAX:
        return False
    memset(&f, 0, sizeof(Frame))
    f.type = F_NOTICE
    f.number = notice
    f.body = <const uint8_t*><const char*>body
    f.body_n = <uint32_t>len(body)
    return out_frame(w, conn_at(&w.conns, d.conn), &f) == 0


# --- envelopes ----------------------------------------------------------------------------------------

cdef bint envelope_is_reported(Core* w, uint64_t recipient, uint64_t sender, uint64_t id) noexcept:
    cdef MailRow row
    cdef uint64_t peer = recipient if id else recipient - 1
    cdef int n = w.store.read_receipts(w.store, sender, peer, id - 1, &row, 1)
    return n < 0 or (n == 1 and row.env.sender == recipient and row.env.id == id)


cdef bint envelope_waits(Core* w, uint64_t recipient, uint64_t sender, uint64_t id) noexcept:
    cdef Entry* e = custody_find(&w.custody, recipient, sender, id)
    if e != NULL:
        return e.state != ENTRY_DELETING
    # What cannot be read is not said to be gone.
    return w.store.contains(w.store, recipient, sender, id) != 0 or envelope_is_reported(w, recipient, sender, id)


# --- the rest -----------------------------------------------------------------------------------------

cdef int peer_call(Core* w, int64_t worker, bytes body) except -1:
    if not 0 <= worker < w.workers or worker == w.worker:
        raise LocalError(f"worker {worker} is not another worker")
    cdef const uint8_t* p = <const uint8_t*><const char*>body
    return w.bus.send(w.bus, <uint32_t>worker, BUS_COLD, NULL, 0, p, <uint32_t>len(body), -1) == 0


cdef dict counters(Core* w):
    found = dict(w.stats)
    found.update(
        connections=w.conns.live_n, half_open=w.conns.half_open_n, devices=w.directory.used,
        custody_entries=w.custody.live, custody_deleting=w.custody.deleting,
        bus_messages_in=w.bus.stats.messages_in, bus_messages_out=w.bus.stats.messages_out, bus_lost=w.bus.stats.lost,
        bus_fds_lost=w.bus.stats.fds_lost,
        handshakes_waiting=w.waiting_n, slab_used_bytes=w.slab.used_bytes, slab_cached_bytes=w.slab.cached_bytes,
    )
    return found
