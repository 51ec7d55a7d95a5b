# cython: language_level=3
"""The counts of a device, each changed by its two functions and nowhere else.

    held        envelopes in custody: in memory, or in its mailbox
    undrained   of those: in the mailbox, and not sent yet on the live connection
    undeleted   acknowledged, and perhaps still in the mailbox

A device that was removed and registered again under the same address begins with nothing: rows and entries from before
are not in its counts.  `counted_at` finds the device whose counts have a row.

A count that would leave its range stays where it is, and `Stats.miscounts` says so: to an operator, and to core_check,
which fails from then on.  It is a fault of ours, or of a store that broke its contract, so it does not end the process
on the spot.
"""
from libc.stdint cimport uint64_t
from wa._fastpath.base.assertion cimport wa_assert
from wa._fastpath.state.addresses cimport addresses_find, AddressSlot
from wa._fastpath.state.core cimport Core, Device, HELD_MAX, NONE_INDEX
from wa._fastpath.state.directory cimport directory_find


cdef inline Device* counted_at(Core* w, uint64_t recipient, uint64_t seq) noexcept nogil:
    """NULL when that device was removed, also if the address has another one now.  seq: of the row or entry."""
    cdef Device* d = directory_find(&w.directory, recipient)
    cdef AddressSlot* former
    if d != NULL and d.has_former:
        former = addresses_find(&w.formers, recipient)
        wa_assert(former != NULL, b"a device with a former one is in the table of those")
        if former != NULL and seq <= former.seq:
            return NULL
    return d


cdef inline void held_add(Core* w, Device* d) noexcept nogil:
    if d.held == HELD_MAX:
        w.stats.miscounts += 1
        return
    d.held += 1


cdef inline void held_sub(Core* w, Device* d) noexcept nogil:
    if d.held == 0:
        w.stats.miscounts += 1
        return
    d.held -= 1


cdef inline void undrained_add(Core* w, Device* d) noexcept nogil:
    wa_assert(d.conn != NONE_INDEX, b"only a connected device is drained")
    if d.undrained == HELD_MAX:
        w.stats.miscounts += 1
        return
    d.undrained += 1


cdef inline void undrained_sub(Core* w, Device* d) noexcept nogil:
    wa_assert(d.conn != NONE_INDEX, b"only a connected device is drained")
    if d.undrained == 0:
        w.stats.miscounts += 1
        return
    d.undrained -= 1


cdef inline void undeleted_add(Core* w, Device* d) noexcept nogil:
    if d.undeleted == HELD_MAX:
        w.stats.miscounts += 1
        return
    d.undeleted += 1


cdef inline void undeleted_sub(Core* w, Device* d) noexcept nogil:
    if d.undeleted == 0:
        w.stats.miscounts += 1
        return
    d.undeleted -= 1
