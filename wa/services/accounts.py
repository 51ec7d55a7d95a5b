"""Accounts: register.verify binds a device (a Noise static key) to a number.

mode "replace": the account has this one device from now on; the others are told, closed and removed. mode
"add": one more device; the others are told.  A device that is there already (same static key) stays as it is.
"""

from wa import ids, limits
from wa.errors import Code, RemoteError
from wa.services import verification
from wa.services.base import AddDevice, Answer, Effect, Notify, Params, RemoveDevice, Request
from wa.services.devices import next_device, with_devices
from wa.services.verification import Outcome
from wa.storage.records import Account, Device
from wa.storage.registry import Change
from wa.wire.methods import Notice

MODES = ("replace", "add")


def register_verify(request: Request[Change], params: Params) -> Answer:
    """-> {address}; the connection is live from here on.

    Raises RemoteError(BAD_PARAMS, CODE_EXPIRED, TOO_MANY_ATTEMPTS, DEVICES_FULL); a wrong code is answered
    with CODE_WRONG and counted.
    """
    code, mode, name = params["code"], params["mode"], params["name"]
    if mode not in MODES:
        raise RemoteError(Code.BAD_PARAMS, "mode is replace or add")
    outcome = verification.try_code(request, code)
    if outcome is Outcome.WRONG:
        return verification.count_wrong(request)
    account = request.registry.account(request.number) or Account(request.number, request.now_s)
    present = _device_of_key(request, account)
    if outcome is Outcome.REPEATED and present is None:
        raise RemoteError(Code.CODE_EXPIRED)  # it was removed since
    if present is not None and (outcome is Outcome.REPEATED or mode == "add"):
        verification.use_code(request, code)
        return Answer({"address": present}, (AddDevice(present, request.static_key),))
    if mode == "add" and len(account.devices) >= limits.DEVICES_PER_ACCOUNT_MAX:
        raise RemoteError(Code.DEVICES_FULL)
    verification.use_code(request, code)
    return _replace(request, account, name) if mode == "replace" else _add(request, account, name)


def _device_of_key(request: Request[Change], account: Account) -> ids.Address | None:
    for address in account.addresses():
        device = request.registry.device(address)
        if device is not None and device.static_key == request.static_key:
            return address
    return None


def _replace(request: Request[Change], account: Account, name: str) -> Answer:
    told: list[Effect] = []
    for old in account.addresses():
        request.registry.delete_device(old)
        told += [Notify(old, Notice.REPLACED, {}), RemoveDevice(old, Code.REPLACED)]
    return _bind(request, account, (), name, told)


def _add(request: Request[Change], account: Account, name: str) -> Answer:
    news = {"device": next_device(account), "name": name}
    told: list[Effect] = [Notify(other, Notice.DEVICE_ADDED, news) for other in account.addresses()]
    return _bind(request, account, account.devices, name, told)


def _bind(
    request: Request[Change], account: Account, kept: tuple[int, ...], name: str, told: list[Effect]
) -> Answer:
    device = next_device(account)
    address = ids.address_of(account.number, device)
    request.registry.put(Device(address, request.static_key, name, request.now_s))
    request.registry.put(with_devices(account, (*kept, device), device))
    if device <= account.last_device:  # the numbers went round: nothing of its earlier owner may be left
        told.append(RemoveDevice(address, Code.REPLACED))
    return Answer({"address": address}, (*told, AddDevice(address, request.static_key)))
