# cython: language_level=3
# HOT: loops around the primitives alone, to know what libsodium itself costs on this machine, now.
"""The cost of the cryptography without a server around it."""
from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memset

from wa._fastpath.noise cimport (
    NOISE_IK, NoiseHandshake, NoiseTransport, noise_open, noise_read, noise_seal, noise_split, noise_start, noise_write,
)
from wa._fastpath.sodium cimport crypto_scalarmult, crypto_scalarmult_base, sodium_init

import os
import time

cdef enum:
    LOGIN_BYTES = 9


def handshake_s(suite: int, rounds: int) -> float:
    """CPU seconds of one IK handshake on the responder's side: read message 1, write message 2, split."""
    cdef uint8_t[32] s_priv, s_pub, c_priv, c_pub, e_priv
    cdef uint8_t[8] hello
    cdef uint8_t[512] first, second, payload
    cdef NoiseHandshake client, server
    cdef NoiseTransport transport
    cdef int64_t n
    cdef int i
    cdef int count = rounds
    cdef int which = suite
    if sodium_init() < 0:
        raise OSError("libsodium cannot be initialised")
    for key, public in ((0, 0), (1, 1)):
        secret = os.urandom(32)
        for i in range(32):
            if key == 0:
                s_priv[i] = secret[i]
            else:
                c_priv[i] = secret[i]
    crypto_scalarmult_base(s_pub, s_priv)
    crypto_scalarmult_base(c_pub, c_priv)
    memset(hello, 0, 8)
    memset(payload, 0, 512)
    memset(e_priv, 9, 32)
    noise_start(&client, NOISE_IK, which, True, hello, 8, c_priv, c_pub, s_pub)
    n = noise_write(&client, e_priv, payload, LOGIN_BYTES, first, 512)
    began = time.process_time()
    with nogil:
        for i in range(count):
            noise_start(&server, NOISE_IK, which, False, hello, 8, s_priv, s_pub, NULL)
            if noise_read(&server, first, <size_t>n, payload, 512) != LOGIN_BYTES:
                break
            if noise_write(&server, e_priv, NULL, 0, second, 512) < 0:
                break
            noise_split(&server, &transport)
        else:
            i = count
    if i != count:
        raise ValueError("the handshake failed")
    return (time.process_time() - began) / rounds


def scalar_multiplications_s(rounds: int) -> float:
    """CPU seconds of the five multiplications in one IK responder: one of the base point, four of others."""
    cdef uint8_t[32] private, public, shared
    cdef int i, k
    cdef int count = rounds
    if sodium_init() < 0:
        raise OSError("libsodium cannot be initialised")
    memset(private, 7, 32)
    began = time.process_time()
    with nogil:
        for i in range(count):
            crypto_scalarmult_base(public, private)
            for k in range(4):
                if crypto_scalarmult(shared, private, public) != 0:
                    break
    return (time.process_time() - began) / rounds


def seal_and_open_s(suite: int, bytes_n: int, rounds: int) -> float:
    """CPU seconds of sealing one record of this many plain bytes and opening it again."""
    cdef uint8_t[65600] record
    cdef NoiseTransport sender, receiver
    cdef int i
    cdef int count = rounds
    cdef int which = suite
    cdef size_t n = bytes_n
    if not 0 <= bytes_n <= 65519:
        raise ValueError("a record has at most 65519 plain bytes")
    if sodium_init() < 0:
        raise OSError("libsodium cannot be initialised")
    memset(&sender, 3, sizeof(sender))
    memset(&receiver, 3, sizeof(receiver))
    sender.send_nonce = receiver.recv_nonce = 0
    memset(record, 0, sizeof(record))
    began = time.process_time()
    with nogil:
        for i in range(count):
            noise_seal(&sender, which, record, n, record)
            if noise_open(&receiver, which, record, n + 16, record) < 0:
                break
        else:
            i = count
    if i != count:
        raise ValueError("a record did not open")
    return (time.process_time() - began) / rounds
