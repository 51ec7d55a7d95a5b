"""The records of the registry: what the server knows about accounts and devices, and how they look on disk.

A record is a msgpack array of its fields in the order of its dataclass, followed by a CRC-32 (big-endian) over table
name ‖ key ‖ array.  So a record under a wrong key is corrupt, like one with a flipped bit.  A new field is appended
with a default, and older records are read with it: no upgrade step is needed.

Services know what the fields mean, the registry where they are kept.
"""

import struct
import zlib
from collections.abc import Callable
from dataclasses import astuple, dataclass, field
from typing import Any, ClassVar, Self

import msgpack

from wa import ids
from wa.errors import LocalError

U32_MAX = 2**32 - 1
U64_MAX = 2**64 - 1
BUDGET_NAME_BYTES_MAX = 64
IP_SUBJECT_BIT = 1 << 63
_CRC = struct.Struct(">I")


class CorruptRecord(Exception):
    """A stored value that does not match its checksum or its form.  Never leaves the storage layer."""


@dataclass(frozen=True)
class Record:
    """Base of all records.  `TABLE` is the table's name, `key()` the key in it."""

    TABLE: ClassVar[str]

    def key(self) -> bytes:
        raise NotImplementedError

    def encode(self) -> bytes:
        """The value as stored, checksum included."""
        packed: bytes = msgpack.packb(astuple(self), use_bin_type=True)
        return packed + _CRC.pack(_checksum(self.TABLE, self.key(), packed))

    @classmethod
    def decode(cls, key: bytes, value: bytes) -> Self:
        """Raises CorruptRecord."""
        packed = value[: -_CRC.size]
        if len(value) <= _CRC.size or value[-_CRC.size :] != _CRC.pack(_checksum(cls.TABLE, key, packed)):
            raise CorruptRecord(f"checksum of a record in {cls.TABLE}")
        try:
            items: list[Any] = msgpack.unpackb(packed, raw=False, use_list=False)
            record = cls(*items)
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            raise CorruptRecord(f"form of a record in {cls.TABLE}: {type(error).__name__}") from None
        if record.key() != key:
            raise CorruptRecord(f"a record in {cls.TABLE} under another key")
        return record


def _checksum(table: str, key: bytes, packed: bytes) -> int:
    return zlib.crc32(packed, zlib.crc32(key, zlib.crc32(table.encode())))


def number_key(number: int) -> bytes:
    """Key of `accounts` and `codes`: number u64 BE."""
    return struct.pack(">Q", number)


def address_key(address: int) -> bytes:
    """Key of `devices`, `keys` and `push`: address u64 BE."""
    return struct.pack(">Q", address)


def one_time_key_key(address: int, key_id: int) -> bytes:
    """Key of `one_time`: address u64 BE ‖ key id u32 BE."""
    return struct.pack(">QI", address, key_id)


def budget_key(subject: int, name: str) -> bytes:
    """Key of `budgets`: subject u64 BE ‖ name."""
    encoded = name.encode()
    if not 0 < len(encoded) <= BUDGET_NAME_BYTES_MAX:
        raise LocalError(f"a budget's name has 1 to {BUDGET_NAME_BYTES_MAX} bytes, not {len(encoded)}")
    return struct.pack(">Q", subject) + encoded


def ip_subject(ip_hash: bytes) -> int:
    """Budget subject of an IP address: 63 bits of a keyed hash of it (at least 8 bytes), with the top bit
    set.

    No phone number (under 2^50) and no hashed IP address are ever the same subject.
    """
    if len(ip_hash) < 8:
        raise LocalError("give at least 8 bytes of the hash")
    return int.from_bytes(ip_hash[:8], "big") | IP_SUBJECT_BIT


@dataclass(frozen=True)
class Account(Record):
    """A registered phone number.

    devices: device numbers (1..255), ascending.
    pin_hash, pin_salt: registration PIN, empty when none is set.
    last_device: the device number given out last, so that a new device does not get that of a removed one.
    """

    TABLE: ClassVar[str] = "accounts"
    number: int
    created_s: int
    devices: tuple[int, ...] = ()
    pin_hash: bytes = b""
    pin_salt: bytes = b""
    last_device: int = 0

    def key(self) -> bytes:
        return number_key(self.number)

    def addresses(self) -> tuple[ids.Address, ...]:
        """The addresses of its devices."""
        return tuple(ids.address_of(self.number, device) for device in self.devices)


@dataclass(frozen=True)
class Device(Record):
    """A device of an account.  static_key: Noise static public key, 32 bytes.  created_s: Unix seconds."""

    TABLE: ClassVar[str] = "devices"
    address: int
    static_key: bytes
    name: str
    created_s: int

    def key(self) -> bytes:
        return address_key(self.address)


@dataclass(frozen=True)
class DeviceKeys(Record):
    """Public end-to-end keys of a device, as it uploaded them; the server verifies nothing in them.

    identity, signed_key: 32 bytes; signed_signature: 64.  signed_id: u32.
    one_time_high: highest id of a one-time key ever stored for this device, -1 for none.  A caller ignores ids at or
    below it, so a repeated upload never brings back a key that was handed out.
    """

    TABLE: ClassVar[str] = "keys"
    address: int
    identity: bytes
    signed_id: int
    signed_key: bytes
    signed_signature: bytes
    one_time_high: int = -1

    def key(self) -> bytes:
        return address_key(self.address)


@dataclass(frozen=True)
class OneTimeKey(Record):
    """One one-time prekey of a device.  key_id: u32; public: 32 bytes."""

    TABLE: ClassVar[str] = "one_time"
    address: int
    key_id: int
    public: bytes

    def key(self) -> bytes:
        return one_time_key_key(self.address, self.key_id)


@dataclass(frozen=True)
class CodeRecord(Record):
    """A pending verification code.  hash: 32 bytes, over salt and code.  tries: wrong ones so far."""

    TABLE: ClassVar[str] = "codes"
    number: int
    hash: bytes
    salt: bytes
    expires_s: int
    tries: int = 0

    def key(self) -> bytes:
        return number_key(self.number)


@dataclass(frozen=True)
class Budget(Record):
    """How much of a budget is used.

    subject: a phone number or `ip_subject()`.  name: which budget, 1 to 64 bytes; a budget for a pair carries
    the other party in its name.  window_start_s: Unix seconds.  count: used since then.
    """

    TABLE: ClassVar[str] = "budgets"
    subject: int
    name: str
    window_start_s: int
    count: int

    def key(self) -> bytes:
        return budget_key(self.subject, self.name)


@dataclass(frozen=True)
class PushToken(Record):
    """Where an offline device is woken.

    platform: the push service, e.g. "fcm".  token: what that service gave the device; its holder can wake the device,
    so a repr does not show it.  registered_s: Unix seconds.
    """

    TABLE: ClassVar[str] = "push"
    address: int
    platform: str
    token: str = field(repr=False)
    registered_s: int

    def key(self) -> bytes:
        return address_key(self.address)


RECORDS: tuple[type[Record], ...] = (Account, Device, DeviceKeys, OneTimeKey, CodeRecord, Budget, PushToken)
TABLES: tuple[str, ...] = tuple(record.TABLE for record in RECORDS)
Corrupt = Callable[[str, bytes], None]  # table, key
