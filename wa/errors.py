"""Every error that can cross the wire, in one table.

Codes below 32 end the connection.  Codes from 32 on answer one request or one envelope, and the connection lives on.

Server, client SDK and `docs/protocol.md` use these numbers and names; a test compares them.
"""

from enum import IntEnum


class Code(IntEnum):
    """A named error.  People and logs see `Code.X.name.lower()`."""

    OK = 0
    # --- the connection ends ---
    PROTOCOL_ERROR = 1
    VERSION_UNSUPPORTED = 2
    SUITE_UNSUPPORTED = 3
    PATTERN_UNSUPPORTED = 4
    HANDSHAKE_FAILED = 5
    HANDSHAKE_TIMEOUT = 6
    RECORD_TOO_LARGE = 7
    FRAME_MALFORMED = 8
    UNKNOWN_FRAME = 9
    DECRYPT_FAILED = 10
    DEVICE_UNKNOWN = 11
    REPLACED = 12
    BUSY = 13
    SLOW_READER = 14
    NOT_RESPONDING = 15
    SHUTTING_DOWN = 16
    IDLE_TIMEOUT = 17
    INTERNAL = 18
    NOT_PERMITTED = 19
    TICKET_VOID = 20
    # --- one request or one envelope fails ---
    UNKNOWN_METHOD = 32
    BAD_PARAMS = 33
    NUMBER_INVALID = 34
    CODE_WRONG = 35
    CODE_EXPIRED = 36
    TOO_MANY_ATTEMPTS = 37
    BUDGET_EXHAUSTED = 38
    ACCOUNT_UNKNOWN = 39
    PREKEYS_MISSING = 40
    NOT_REGISTERED = 41
    REQUEST_TIMEOUT = 42
    TRY_LATER = 43
    MAILBOX_FULL = 44
    BODY_TOO_LARGE = 45
    TTL_INVALID = 46
    EXPIRED = 47
    DROPPED = 48
    ADDRESS_UNKNOWN = 49
    DEVICES_FULL = 50
    KIND_INVALID = 51
    LIST_TOO_LONG = 52
    STORAGE_FAILED = 53


EXPLANATION: dict[Code, str] = {
    Code.OK: "no error",
    Code.PROTOCOL_ERROR: "the peer broke the protocol",
    Code.VERSION_UNSUPPORTED: "this protocol version is not spoken here; upgrade the client",
    Code.SUITE_UNSUPPORTED: "this cipher suite is not available here; offer the other one",
    Code.PATTERN_UNSUPPORTED: "the hello names a handshake pattern that cannot be offered",
    Code.HANDSHAKE_FAILED: "a handshake message did not authenticate",
    Code.HANDSHAKE_TIMEOUT: "the handshake or the first frame took too long",
    Code.RECORD_TOO_LARGE: "a record's length is outside what this stage allows",
    Code.FRAME_MALFORMED: "a frame is cut short or one of its fields is not canonical",
    Code.UNKNOWN_FRAME: "this frame type is not known",
    Code.DECRYPT_FAILED: "a transport record did not authenticate",
    Code.DEVICE_UNKNOWN: "this device key is not registered for this address; register again",
    Code.REPLACED: "another connection of the same device, or another device, took over",
    Code.BUSY: "the server is shedding load; come back at the time given",
    Code.SLOW_READER: "the peer does not read what it is sent",
    Code.NOT_RESPONDING: "deliveries were not acknowledged after every resend",
    Code.SHUTTING_DOWN: "the server is stopping; reconnect",
    Code.IDLE_TIMEOUT: "no whole record was heard from the peer in time, not even a ping",
    Code.INTERNAL: "the server failed; the fault is logged there",
    Code.NOT_PERMITTED: "this frame or request is not permitted before the device is registered",
    Code.TICKET_VOID: "the resumption ticket was used up meanwhile; log in with the device's key",
    Code.UNKNOWN_METHOD: "this request method is not known",
    Code.BAD_PARAMS: "a parameter is missing, superfluous or of the wrong form",
    Code.NUMBER_INVALID: "not a valid phone number in E.164 form",
    Code.CODE_WRONG: "the code is not the one that was sent",
    Code.CODE_EXPIRED: "the code is no longer valid; ask for a new one",
    Code.TOO_MANY_ATTEMPTS: "too many wrong codes; ask for a new one",
    Code.BUDGET_EXHAUSTED: "too many requests of this kind; wait and try again",
    Code.ACCOUNT_UNKNOWN: "nobody is registered under this number",
    Code.PREKEYS_MISSING: "the device has not uploaded its keys yet",
    Code.NOT_REGISTERED: "register this device first",
    Code.REQUEST_TIMEOUT: "the owner of the account did not answer in time; try again",
    Code.TRY_LATER: "the server cannot take this safely now; send it again later",
    Code.MAILBOX_FULL: "the recipient's mailbox is full; send it again later",
    Code.BODY_TOO_LARGE: "the body is over the envelope limit; send it as media",
    Code.TTL_INVALID: "the time to live is zero or over the limit of its kind",
    Code.EXPIRED: "the envelope expired before it could be delivered",
    Code.DROPPED: "the envelope was pruned from a full mailbox",
    Code.ADDRESS_UNKNOWN: "no such device; fetch the recipient's devices again",
    Code.DEVICES_FULL: "the account has as many devices as it may have; remove one first",
    Code.KIND_INVALID: "this envelope kind is not known",
    Code.LIST_TOO_LONG: "a list in the request is over its limit",
    Code.STORAGE_FAILED: "the server could not store this; nothing was changed",
}

assert set(EXPLANATION) == set(Code)


class RemoteError(Exception):
    """The other side is at fault, or says that we are.  `code` is the named error."""

    def __init__(self, code: Code, detail: str = "", *, retry_after_ms: int = 0) -> None:
        self.code = code
        self.detail = detail
        self.retry_after_ms = retry_after_ms
        super().__init__(f"{code.name.lower()}: {detail or EXPLANATION[code]}")


class LocalError(Exception):
    """Our own side was used wrongly; the message says what to do instead."""
