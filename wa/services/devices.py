"""Devices of an account: which numbers they get, who sees them, how one is removed.

A device number is not reused while others may hold something for the old device: envelopes in flight or in a mailbox,
ratchet sessions.  So numbers go round from 1 to 255: the next free one after the last given out.  A number returns
after 255 registrations at the earliest, more than 25 days by the budget of codes; its mailbox is purged before.
"""

from wa import ids
from wa.errors import Code, RemoteError
from wa.services.base import Answer, Effect, Notify, Params, RemoveDevice, Request
from wa.storage.records import Account
from wa.storage.registry import Change, View
from wa.wire.methods import Notice


def next_device(account: Account) -> int:
    """A number for one more device of the account, which has room for it."""
    for step in range(1, ids.DEVICE_MAX + 1):
        device = (account.last_device + step - 1) % ids.DEVICE_MAX + 1
        if device not in account.devices:
            return device
    raise AssertionError("an account has fewer devices than there are numbers")


def devices_list(request: Request[View], params: Params) -> Answer:
    """-> {devices: [{device, name, created}]}; name is nil unless the account is the caller's own.

    Raises RemoteError(ACCOUNT_UNKNOWN).
    """
    account = known_account(request.registry, params["number"])
    own = account.number == request.number
    rows = [
        {
            "device": ids.device_of(device.address),
            "name": device.name if own else None,
            "created": device.created_s,
        }
        for address in account.addresses()
        if (device := request.registry.device(address)) is not None
    ]
    return Answer({"devices": rows})


def devices_remove(request: Request[Change], params: Params) -> Answer:
    """Removes a device of the caller's account, its own one too, with its keys and mailbox.  -> {}

    The remaining ones get a notice.  Raises RemoteError(NOT_REGISTERED, ADDRESS_UNKNOWN).
    """
    change, gone = request.registry, params["device"]
    account = own_account(request)
    if gone not in account.devices:
        raise RemoteError(Code.ADDRESS_UNKNOWN, f"the account has no device {gone}")
    address = ids.address_of(account.number, gone)
    kept = tuple(device for device in account.devices if device != gone)
    change.delete_device(address)
    change.put(with_devices(account, kept, account.last_device))
    notices: tuple[Effect, ...] = tuple(
        Notify(ids.address_of(account.number, device), Notice.DEVICE_REMOVED, {"device": gone})
        for device in kept
    )
    return Answer({}, (*notices, RemoveDevice(address, Code.DEVICE_UNKNOWN)))


def known_account(view: View, number: int) -> Account:
    """An account that has devices.  Raises RemoteError(ACCOUNT_UNKNOWN)."""
    account = view.account(number)
    if account is None or not account.devices:
        raise RemoteError(Code.ACCOUNT_UNKNOWN)
    return account


def own_account(request: Request[View]) -> Account:
    """The caller's account.  Raises RemoteError(NOT_REGISTERED) when its device was removed meanwhile."""
    account = request.registry.account(request.number)
    if account is None or request.device not in account.devices:
        raise RemoteError(Code.NOT_REGISTERED)
    return account


def with_devices(account: Account, devices: tuple[int, ...], last_device: int) -> Account:
    return Account(
        account.number,
        account.created_s,
        tuple(sorted(devices)),
        account.pin_hash,
        account.pin_salt,
        last_device,
    )
