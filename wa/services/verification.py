"""Verification codes: they prove that a registering device's user can read what is sent to the number.

A code is kept as a salted HMAC-SHA-256 under a secret outside the registry: a plain hash of six digits is broken in a
second.  Success binds the record to the device's static key.  Then the same device may repeat the request for
VERIFY_RETRY_S (its answer may be lost), and nobody else can use the code.
"""

import hashlib
import hmac
from enum import Enum

from wa import ids, limits
from wa.errors import Code, RemoteError
from wa.services.base import Answer, Params, Request, SendCode
from wa.services.budgets import CODES_PER_IP, CODES_PER_NUMBER, ip_budget_subject, spent
from wa.storage.records import CodeRecord
from wa.storage.registry import Change

SALT_BYTES = 16


def register_request_code(request: Request[Change], params: Params) -> Answer:
    """Sends a fresh code; an older one is no longer valid.  -> {expires_in_s}

    Raises RemoteError(NUMBER_INVALID, BUDGET_EXHAUSTED).
    """
    change, now_s, site = request.registry, request.now_s, request.site
    number = ids.parse_number(ids.format_number(request.number))
    by_number = spent(change, CODES_PER_NUMBER, number, now_s)
    subject = ip_budget_subject(request.peer, site.pepper)
    by_ip = spent(change, CODES_PER_IP, subject, now_s, share=site.workers)
    code = str(site.random_below(10**limits.CODE_DIGITS)).zfill(limits.CODE_DIGITS)
    salt = site.random_bytes(SALT_BYTES)
    change.put(by_number)
    change.put(by_ip)
    change.put(CodeRecord(number, _hash(site.pepper, salt, code), salt, now_s + limits.CODE_LIFETIME_S))
    return Answer({"expires_in_s": limits.CODE_LIFETIME_S}, (SendCode(number, code),))


class Outcome(Enum):
    RIGHT = 1  # a code not used before
    REPEATED = 2  # a code that this very device has used a short while ago
    WRONG = 3


def try_code(request: Request[Change], code: str) -> Outcome:
    """Compares `code` with the one that was sent; changes nothing.

    Raises RemoteError: CODE_EXPIRED without a valid code, TOO_MANY_ATTEMPTS after the last try.
    """
    record, pepper = request.registry.code(request.number), request.site.pepper
    if record is None or record.expires_s <= request.now_s:
        raise RemoteError(Code.CODE_EXPIRED)
    if record.tries >= limits.CODE_TRIES_MAX:
        raise RemoteError(Code.TOO_MANY_ATTEMPTS)
    right = hmac.compare_digest(record.hash, _hash(pepper, record.salt, code))
    repeated = hmac.compare_digest(record.hash, _hash(pepper, record.salt, code, request.static_key))
    if right:
        return Outcome.RIGHT
    return Outcome.REPEATED if repeated else Outcome.WRONG


def count_wrong(request: Request[Change]) -> Answer:
    """Counts a wrong code.  Its answer, {detail, tries_left}, keeps the change."""
    record = request.registry.code(request.number)
    assert record is not None, "try_code has looked at it"
    tries = record.tries + 1
    request.registry.put(CodeRecord(record.number, record.hash, record.salt, record.expires_s, tries))
    left = limits.CODE_TRIES_MAX - tries
    return Answer({"detail": f"{left} tries left", "tries_left": left}, status=Code.CODE_WRONG)


def use_code(request: Request[Change], code: str) -> None:
    """After a success: binds the code to this device, which may repeat it for VERIFY_RETRY_S."""
    record = request.registry.code(request.number)
    assert record is not None, "try_code has looked at it"
    request.registry.put(
        CodeRecord(
            record.number,
            _hash(request.site.pepper, record.salt, code, request.static_key),
            record.salt,
            request.now_s + limits.VERIFY_RETRY_S,
            record.tries,
        )
    )


def _hash(pepper: bytes, salt: bytes, code: str, static_key: bytes = b"") -> bytes:
    text = code.encode()
    message = b"wa code 1" + salt + len(text).to_bytes(2, "big") + text + static_key
    return hmac.new(pepper, message, hashlib.sha256).digest()
