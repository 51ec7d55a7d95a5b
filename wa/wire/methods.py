"""The request methods, notices and envelope kinds of the protocol (docs/protocol.md, sections 4 and 5).

Only this table knows a method's number, its parameters and who may call it.  `check` turns a msgpack map into verified
parameters, or raises RemoteError(BAD_PARAMS).
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import msgpack

from wa import limits
from wa.errors import Code, RemoteError


class Kind(IntEnum):
    """Envelope kinds."""

    OTHER = 0
    TEXT = 1
    IMAGE = 2
    VIDEO = 3
    DOCUMENT = 4
    VOICE = 5
    CALL = 6
    VIDEO_CALL = 7
    STATUS = 8


PRIORITY: dict[Kind, int] = {
    Kind.OTHER: 10,
    Kind.TEXT: 10,
    Kind.IMAGE: 30,
    Kind.VIDEO: 10,
    Kind.DOCUMENT: 10,
    Kind.VOICE: 50,
    Kind.CALL: 100,
    Kind.VIDEO_CALL: 100,
    Kind.STATUS: 5,
}

RETENTION_S: dict[Kind, int] = {
    kind: {100: limits.RETENTION_CALL_S, 5: limits.RETENTION_STATUS_S}.get(PRIORITY[kind], limits.RETENTION_S)
    for kind in Kind
}


class Notice(IntEnum):
    """Unacknowledged hints from the server."""

    PREKEYS_LOW = 1  # {"count": one-time prekeys left}
    DEVICE_ADDED = 2  # {"device": n, "name": text}
    DEVICE_REMOVED = 3  # {"device": n}
    REPLACED = 4  # {} : the number was registered again elsewhere; a close with code replaced follows


class Method(IntEnum):
    REGISTER_REQUEST_CODE = 1
    REGISTER_VERIFY = 2
    KEYS_UPLOAD = 3
    KEYS_FETCH = 4
    KEYS_STOCK = 5
    DEVICES_LIST = 6
    DEVICES_REMOVE = 7
    RECEIPTS_STATUS = 8
    SERVER_INFO = 9
    PUSH_REGISTER = 10
    PUSH_UNREGISTER = 11


class Who(IntEnum):
    """Who may call a method, and where it is executed."""

    REGISTERING = 1  # a connection with intent "register", at the owner of its number
    SELF = 2  # a live device, at its own owner
    NUMBER = 3  # a live device, at the owner of the account in parameter "number"


@dataclass(frozen=True)
class Field:
    """One parameter: msgpack type, bounds (of the value, or of the length in bytes or items), optional or not."""

    type: type
    low: int = 0
    high: int = 2**64 - 1
    optional: bool = False


@dataclass(frozen=True)
class Spec:
    method: Method
    who: Who
    fields: dict[str, Field]
    doc: str

    @property
    def name(self) -> str:
        """The dotted name, e.g. "keys.fetch"."""
        return self.method.name.lower().replace("_", ".", 1)


_NUMBER = Field(int, 1, 10**15 - 1)
_KEY = Field(bytes, 32, 32)

SPECS: dict[Method, Spec] = {
    spec.method: spec
    for spec in (
        Spec(
            Method.REGISTER_REQUEST_CODE,
            Who.REGISTERING,
            {},
            "Sends a code to the number of this connection. -> {expires_in_s}",
        ),
        Spec(
            Method.REGISTER_VERIFY,
            Who.REGISTERING,
            {
                "code": Field(str, 1, 16),
                "mode": Field(str, 3, 7),
                "name": Field(str, 0, limits.DEVICE_NAME_BYTES_MAX),
            },
            'Binds this connection\'s Noise static key. mode "replace": the account has this one device from now on;'
            ' "add": one more device. -> {address}; the connection is live from here on.',
        ),
        Spec(
            Method.KEYS_UPLOAD,
            Who.SELF,
            {
                "identity": _KEY,
                "signed_id": Field(int, 0, 2**32 - 1),
                "signed_key": _KEY,
                "signed_signature": Field(bytes, 64, 64),
                "one_time": Field(list, 0, limits.ONE_TIME_PREKEYS_MAX),
            },
            "Publishes identity key, signed prekey and further one-time prekeys, each [id u32, key 32]. -> {count}",
        ),
        Spec(
            Method.KEYS_FETCH,
            Who.NUMBER,
            {"number": _NUMBER, "device": Field(int, 1, 255, optional=True)},
            "Bundles of all devices of an account, or of one; takes one one-time prekey of each. -> {devices: [{device,"
            " identity, signed_id, signed_key, signed_signature, one_time_id, one_time_key}]} (one_time_* nil: out)",
        ),
        Spec(Method.KEYS_STOCK, Who.SELF, {}, "-> {count, signed_id}: one-time prekeys left, newest signed prekey"),
        Spec(
            Method.DEVICES_LIST,
            Who.NUMBER,
            {"number": _NUMBER},
            "-> {devices: [{device, name, created}]}; name is nil unless the account is the caller's own",
        ),
        Spec(
            Method.DEVICES_REMOVE,
            Who.SELF,
            {"device": Field(int, 1, 255)},
            "Removes a device of the caller's own account, with its keys and mailbox. -> {}",
        ),
        Spec(
            Method.RECEIPTS_STATUS,
            Who.NUMBER,
            {"number": _NUMBER, "items": Field(list, 1, limits.STATUS_ITEMS_MAX)},
            "For messages of the caller to devices of `number`, each [device, id]: is it still waiting there?"
            " -> {waiting: [bool]}; an accepted message that is not waiting was delivered or has expired",
        ),
        Spec(Method.SERVER_INFO, Who.SELF, {}, "-> {version, protocol, time_ms}"),
        Spec(
            Method.PUSH_REGISTER,
            Who.SELF,
            {
                "platform": Field(str, 1, limits.PUSH_PLATFORM_BYTES_MAX),
                "token": Field(str, 1, limits.PUSH_TOKEN_BYTES_MAX),
            },
            "Where this device is woken while it is not connected; takes the place of an earlier token. -> {}",
        ),
        Spec(Method.PUSH_UNREGISTER, Who.SELF, {}, "This device is not woken any more. -> {}"),
    )
}


def spec_of(method: int) -> Spec:
    """Raises RemoteError(UNKNOWN_METHOD)."""
    try:
        return SPECS[Method(method)]
    except ValueError:
        raise RemoteError(Code.UNKNOWN_METHOD, f"method {method}") from None


def pack(body: dict[str, Any]) -> bytes:
    data: bytes = msgpack.packb(body, use_bin_type=True)
    return data


def unpack(data: bytes) -> dict[str, Any]:
    """One msgpack map with string keys and nothing after it.  Raises RemoteError(BAD_PARAMS)."""
    try:
        body = msgpack.unpackb(
            data, raw=False, strict_map_key=True, max_str_len=4096, max_bin_len=4096, max_array_len=1024, max_map_len=64
        )
    except (ValueError, msgpack.UnpackException) as error:
        raise RemoteError(Code.BAD_PARAMS, f"not msgpack: {type(error).__name__}") from None
    if not isinstance(body, dict) or not all(isinstance(key, str) for key in body):
        raise RemoteError(Code.BAD_PARAMS, "the body must be a map with string keys")
    return body


def _size(value: Any) -> int:
    """What a field's bounds are about: the value itself, bytes of text or data, items of a list."""
    if isinstance(value, int):
        return value
    size: int = len(value.encode()) if isinstance(value, str) else len(value)
    return size


def check(spec: Spec, data: bytes) -> dict[str, Any]:
    """The verified parameters of a request.  Raises RemoteError(BAD_PARAMS or LIST_TOO_LONG)."""
    body = unpack(data)
    for name in body:
        if name not in spec.fields:
            raise RemoteError(Code.BAD_PARAMS, f"{spec.name} has no parameter {name[:32]!r}")
    for name, field in spec.fields.items():
        value = body.get(name)
        if value is None:
            if field.optional:
                continue
            raise RemoteError(Code.BAD_PARAMS, f"{spec.name} needs {name}")
        if type(value) is not field.type:
            raise RemoteError(Code.BAD_PARAMS, f"{name} must be {field.type.__name__}")
        size = _size(value)
        if not field.low <= size <= field.high:
            code = Code.LIST_TOO_LONG if isinstance(value, list) and size > field.high else Code.BAD_PARAMS
            raise RemoteError(code, f"{name} is out of range ({field.low}..{field.high})")
    return body
