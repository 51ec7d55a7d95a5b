"""Addresses: one u64 names a (phone number, device) pair and routes everything that is sent to it.

    bit 63..62  tag      00 = device of an account; 01 = group; others reserved
    bit 61..58  zero
    bit 57..8   number   the digits of the E.164 number as an integer (at most 15 digits, under 2^50)
    bit 7..0    device   1..255; 0 stands for the account as a whole (registration, key look-ups)
"""

from typing import NewType

import phonenumbers

from wa.errors import Code, RemoteError

Address = NewType("Address", int)
Number = NewType("Number", int)

DEVICE_BITS = 8
NUMBER_BITS = 50
DEVICE_MAX = (1 << DEVICE_BITS) - 1
NUMBER_MAX = 10**15 - 1
assert NUMBER_MAX < 1 << NUMBER_BITS


def address_of(number: int, device: int) -> Address:
    """The address of `device` (0..255) of the account `number`.  Raises ValueError out of range."""
    if not 0 < number <= NUMBER_MAX:
        raise ValueError(f"number out of range: {number}")
    if not 0 <= device <= DEVICE_MAX:
        raise ValueError(f"device out of range: {device}")
    return Address(number << DEVICE_BITS | device)


def number_of(address: int) -> Number:
    return Number(address >> DEVICE_BITS & (1 << NUMBER_BITS) - 1)


def device_of(address: int) -> int:
    return address & DEVICE_MAX


def is_device_address(address: int) -> bool:
    """True for a well-formed address of one device (tag 00, number in range, device not 0)."""
    return 0 < address < 1 << 58 and 0 < address >> DEVICE_BITS <= NUMBER_MAX and address & DEVICE_MAX != 0


def parse_number(text: str) -> Number:
    """An E.164 number ("+15551230001") as an integer.

    Reserved and fictional numbers (+1 555 …) are accepted: they are *possible*, and demos and tests use them.
    Raises RemoteError(NUMBER_INVALID).
    """
    if not text.startswith("+") or len(text) > 32:
        raise RemoteError(Code.NUMBER_INVALID, f"write the number with + and country code, not {text[:32]!r}")
    try:
        parsed = phonenumbers.parse(text, None)
    except phonenumbers.NumberParseException as error:
        raise RemoteError(Code.NUMBER_INVALID, str(error)) from None
    if not phonenumbers.is_possible_number(parsed):
        raise RemoteError(Code.NUMBER_INVALID, f"{text} cannot be a phone number")
    digits = phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164)
    number = int(digits[1:])
    if number > NUMBER_MAX:
        raise RemoteError(Code.NUMBER_INVALID, f"{text} is longer than 15 digits")
    return Number(number)


def format_number(number: int) -> str:
    return f"+{number}"


def redact(address: int) -> str:
    """For logs: country code and last two digits only, with the device number."""
    digits = str(number_of(address))
    return f"+{digits[:2]}…{digits[-2:]}/{device_of(address)}"
