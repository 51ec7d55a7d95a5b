# cython: language_level=3
# COLD: runs once, when the module is imported.
"""Picks the event backend: poller_epoll on Linux, poller_kqueue on the BSDs.

Only one of the two is built, so its `poller_create` is taken from the module's C API when this module is imported,
the way a `cimport` would, and never changes afterwards.
"""
import os
import sys
from importlib import import_module

from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.pycapsule cimport PyCapsule_GetName, PyCapsule_GetPointer
from libc.stdint cimport int64_t
from libc.string cimport strcmp
from wa._fastpath.os.poller cimport PeerName, Poller, PollEvent
from wa._fastpath.os.sockets cimport FDS_PER_MESSAGE_MAX

from wa._fastpath.os.sockets import connect_unix, listen_unix
from wa.errors import LocalError

ctypedef Poller* (*create_fn)() noexcept nogil

BACKEND = "poller_kqueue" if "bsd" in sys.platform else "poller_epoll"

cdef create_fn backend_create


cdef Poller* poller_create() noexcept nogil:
    return backend_create()


cdef create_fn find_backend() except NULL:
    capsule = import_module(f"wa._fastpath.os.{BACKEND}").__pyx_capi__["poller_create"]
    ours = sys.modules[__name__].__pyx_capi__["poller_create"]
    # a capsule's name is the C signature
    if strcmp(PyCapsule_GetName(capsule), PyCapsule_GetName(ours)) != 0:
        raise LocalError(f"{BACKEND} was built with another poller_create(): build again")
    return <create_fn>PyCapsule_GetPointer(capsule, PyCapsule_GetName(capsule))


backend_create = find_backend()


def bus_path(run_dir: str, worker: int) -> str:
    return os.path.join(run_dir, f"bus-{worker}.sock")


cdef class Host:
    """See os/host.pxd."""

    cdef Poller* new_poller(self) except NULL:
        cdef Poller* p = poller_create()
        if p == NULL:
            raise OSError("the event source cannot be made: out of descriptors or memory")
        return p

    cdef int bus_listen(self, str run_dir, int worker) except -1:
        return listen_unix(bus_path(run_dir, worker)).detach()

    cdef int bus_connect(self, str run_dir, int worker) except -1:
        return connect_unix(bus_path(run_dir, worker)).detach()

cdef enum:
    EVENTS_MAX = 512


cdef int64_t checked(int64_t status) except -1:
    """The count, or OSError (of the subclass that fits -errno)."""
    if status < 0:
        raise OSError(<int>-status, os.strerror(<int>-status))
    return status


cdef class PollerFace:
    """The poller for tests: the members of `Poller` with the same names.  A -errno becomes OSError.

    destroy() is also called when the object goes.
    """

    cdef Poller* p

    def __cinit__(self):
        self.p = poller_create()
        if self.p == NULL:
            raise OSError("the event backend could not be made: out of descriptors or memory")

    def __dealloc__(self):
        if self.p != NULL:
            self.p.destroy(self.p)

    def destroy(self) -> None:
        if self.p != NULL:
            self.p.destroy(self.p)
            self.p = NULL

    cdef Poller* live(self) except NULL:
        if self.p == NULL:
            raise LocalError("this poller is destroyed")
        return self.p

    def wait(self, timeout_ms: int, events_max: int = EVENTS_MAX) -> list:
        """[(fd, mask, token)] of at most `events_max` (1..512) events."""
        cdef PollEvent out[EVENTS_MAX]
        cdef Poller* p = self.live()
        cdef int got, timeout = timeout_ms, out_max = events_max
        if not 0 < out_max <= EVENTS_MAX:
            raise LocalError(f"events_max is 1..{EVENTS_MAX}, not {events_max}")
        with nogil:
            got = p.wait(p, out, out_max, timeout)
        checked(got)
        return [(out[i].fd, out[i].mask, out[i].token) for i in range(got)]

    def watch(self, fd: int, mask: int, token: int) -> None:
        checked(self.live().watch(self.p, fd, mask, token))

    def change(self, fd: int, mask: int, token: int) -> None:
        checked(self.live().change(self.p, fd, mask, token))

    def unwatch(self, fd: int) -> None:
        checked(self.live().unwatch(self.p, fd))

    def wake(self) -> None:
        self.live().wake(self.p)

    def accept(self, fd: int) -> tuple:
        """(fd, family 4, 6 or 0, address bytes, port)"""
        cdef PeerName peer
        got = checked(self.live().accept(self.p, fd, &peer))
        size = {4: 4, 6: 16, 0: 0}[peer.family]
        return got, peer.family, (<bytes>peer.address[:16])[:size], peer.port

    def recv(self, fd: int, n: int) -> bytes:
        buffer = bytearray(n)
        got = checked(self.live().recv(self.p, fd, buffer, n))
        return bytes(buffer[:got])

    def send(self, fd: int, data: bytes) -> int:
        return checked(self.live().send(self.p, fd, data, len(data)))

    def send_fds(self, sock: int, data: bytes, fds: list) -> int:
        cdef int* array = <int*>PyMem_Malloc((len(fds) + 1) * sizeof(int))
        if array == NULL:
            raise MemoryError
        try:
            for i, fd in enumerate(fds):
                array[i] = fd
            return checked(self.live().send_fds(self.p, sock, data, len(data), array, len(fds)))
        finally:
            PyMem_Free(array)

    def recv_fds(self, sock: int, n: int, fds_max: int = FDS_PER_MESSAGE_MAX) -> tuple:
        """(bytes, [fd, ...])"""
        cdef int fds[FDS_PER_MESSAGE_MAX]
        cdef int fds_n = 0
        if not 0 <= fds_max <= FDS_PER_MESSAGE_MAX:
            raise LocalError(f"fds_max is 0..{FDS_PER_MESSAGE_MAX}, not {fds_max}")
        buffer = bytearray(n)
        got = checked(self.live().recv_fds(self.p, sock, buffer, n, fds, fds_max, &fds_n))
        return bytes(buffer[:got]), [fds[i] for i in range(fds_n)]

    def close(self, fd: int) -> None:
        self.live().close(self.p, fd)

    def now_ns(self) -> int:
        return self.live().now_ns(self.p)

    def wall_ms(self) -> int:
        return self.live().wall_ms(self.p)

    def random(self, n: int) -> bytes:
        buffer = bytearray(n)
        self.live().random(self.p, buffer, n)
        return bytes(buffer)
