# cython: language_level=3
"""An envelope as the server knows it, wherever it is: on the bus, in custody, in a batch, read back from a mailbox.

It is copied by assignment, never field by field.  Its body travels beside it: behind it in a batch, at a pointer
elsewhere.
"""
from libc.stdint cimport uint16_t, uint32_t, uint64_t, uint8_t

ctypedef struct Envelope:         # 40 bytes without padding; identity = (recipient, sender, id)
    uint64_t recipient            # whose mailbox
    uint64_t sender
    uint64_t id                   # chosen by the sending device
    uint32_t accepted_s           # Unix seconds, by the owner of the recipient
    uint32_t expires_s            # 0: never
    uint32_t body_n
    uint16_t zero
    uint8_t kind                  # of wa.wire.methods.Kind; receipts: 0
    uint8_t priority              # of that kind: drain rule 8
