# cython: language_level=3
"""Bounds that are compiled in: those of wa/limits.py by the same names, compared by tests/unit/test_bounds.py.

What may differ from worker to worker is in state/core.pxd, `Bounds`, and comes from wa/limits.py when a worker is made.
"""

cdef enum:
    SHARDS = 1024
    HELLO_BYTES = 8
    NOISE_MESSAGE_BYTES_MAX = 65535
    NOISE_TAG_BYTES = 16
    RECORD_PLAIN_BYTES_MAX = 65519
    HANDSHAKE_RECORD_BYTES_MAX = 1024
    REKEY_MESSAGES = 65536
    ENVELOPE_BODY_BYTES_MAX = 65408
    REQUEST_BODY_BYTES_MAX = 32768
    ERROR_TEXT_BYTES_MAX = 1024
    TICKET_BYTES_MAX = 255
    DELIVERY_WINDOW_MAX = 64      # a power of two: slots of a ring
    MAILBOX_ENVELOPES_MAX = 1000
    BATCH_BYTES_MAX = 8388608
    BATCH_OPS_MAX = 8192
    REQUESTS_OPEN_MAX = 16
    REGISTERING_MS_MAX = 300000
    WORKERS_MAX = 256
    PROTOCOL_VERSION = 1
