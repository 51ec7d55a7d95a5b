# cython: language_level=3
# COLD: once per batch of cold events.
"""The cold events of a turn as Python objects; loop.pyi says what each means."""
import socket

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free
from wa._fastpath.os.poller cimport PeerName
from wa._fastpath.state.core cimport COLD_LOGIN, COLD_PEER, COLD_REQUEST, COLD_WAKE, ColdEvent


cdef class Login:
    cdef readonly object conn, intent, address, static_key, peer


cdef class Request:
    cdef readonly object conn, address, static_key, peer, request_id, method, body


cdef class PeerMessage:
    cdef readonly object worker, body


cdef class Gone:
    cdef readonly object address


cdef class Wake:
    cdef readonly object address


cdef str peer_text(const PeerName* peer):
    if peer.family == 4:
        return socket.inet_ntop(socket.AF_INET, (<const char*>peer.address)[:4])
    if peer.family == 6:
        return socket.inet_ntop(socket.AF_INET6, (<const char*>peer.address)[:16])
    return ""


cdef object event_of(const ColdEvent* e):
    """The Python face of one cold event."""
    cdef Login login
    cdef Request request
    cdef PeerMessage message
    cdef Gone gone
    cdef Wake wake
    cdef object conn = <uint64_t>e.generation << 32 | e.conn
    cdef bytes key = (<const char*>e.static_key)[:32] if e.has_key else b""
    cdef bytes body = (<const char*>e.body)[:e.body_n] if e.body_n else b""
    if e.what == COLD_LOGIN:
        login = Login.__new__(Login)
        login.conn, login.intent, login.address, login.static_key = conn, e.intent, e.address, key
        login.peer = peer_text(&e.peer)
        return login
    if e.what == COLD_REQUEST:
        request = Request.__new__(Request)
        request.conn, request.address, request.static_key = conn, e.address, key
        request.peer = peer_text(&e.peer)
        request.request_id, request.method, request.body = e.request_id, e.method, body
        return request
    if e.what == COLD_PEER:
        message = PeerMessage.__new__(PeerMessage)
        message.worker, message.body = e.worker, body
        return message
    if e.what == COLD_WAKE:
        wake = Wake.__new__(Wake)
        wake.address = e.address
        return wake
    gone = Gone.__new__(Gone)
    gone.address = e.address
    return gone


cdef list cold_batch(ColdEvent* events, uint32_t n):
    cdef uint32_t i
    batch = [event_of(&events[i]) for i in range(n)]
    for i in range(n):
        free(events[i].body)
    free(events)
    return batch
