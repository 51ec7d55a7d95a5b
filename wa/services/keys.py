"""Public end-to-end keys: upload, stock, and handing out bundles with one one-time prekey each.

The server checks lengths only; the client that fetches verifies, since the server is not trusted.  A one-time prekey
leaves the registry in the transaction that hands it out, and the server after its commit.
"""

from wa import ids, limits
from wa.errors import Code, RemoteError
from wa.services.base import Answer, Effect, Notify, Params, Request
from wa.services.budgets import FETCHES_PER_PAIR, spent
from wa.services.devices import known_account, own_account
from wa.storage.records import U32_MAX, DeviceKeys, OneTimeKey
from wa.storage.registry import Change, View
from wa.wire.methods import Notice

KEY_BYTES = 32


def keys_upload(request: Request[Change], params: Params) -> Answer:
    """Publishes identity key, signed prekey and further one-time prekeys.  -> {count}

    One-time ids at or below the highest ever stored are ignored: a repeated upload must not bring back a key that was
    handed out.  The identity key of a device never changes: a new identity is a new registration.
    Raises RemoteError(NOT_REGISTERED, BAD_PARAMS, LIST_TOO_LONG).
    """
    change, address = request.registry, request.caller
    own_account(request)
    before = change.device_keys(address)
    if before is not None and before.identity != params["identity"]:
        raise RemoteError(Code.BAD_PARAMS, "the identity key of a device does not change; register again")
    high = before.one_time_high if before is not None else -1
    fresh = {key_id: key for key_id, key in _one_time(params["one_time"]).items() if key_id > high}
    count = change.one_time_count(address) + len(fresh)
    if count > limits.ONE_TIME_PREKEYS_MAX:
        raise RemoteError(
            Code.LIST_TOO_LONG, f"at most {limits.ONE_TIME_PREKEYS_MAX} one-time prekeys are kept"
        )
    change.put_one_time(address, sorted(fresh.items()))
    change.put(
        DeviceKeys(
            address,
            params["identity"],
            params["signed_id"],
            params["signed_key"],
            params["signed_signature"],
            max(fresh, default=high),
        )
    )
    return Answer({"count": count})


def keys_stock(request: Request[View], params: Params) -> Answer:
    """-> {count, signed_id}; signed_id is nil before the first upload.  Raises
    RemoteError(NOT_REGISTERED).
    """
    own_account(request)
    keys = request.registry.device_keys(request.caller)
    count = request.registry.one_time_count(request.caller)
    return Answer({"count": count, "signed_id": keys.signed_id if keys is not None else None})


def keys_fetch(request: Request[Change], params: Params) -> Answer:
    """Bundles of all devices of an account but the caller, or of one device.  -> {devices: [...]}

    Raises RemoteError(ACCOUNT_UNKNOWN, ADDRESS_UNKNOWN, PREKEYS_MISSING, BUDGET_EXHAUSTED).
    """
    change = request.registry
    account = known_account(change, params["number"])
    wanted = params.get("device")
    if wanted is not None and wanted not in account.devices:
        raise RemoteError(Code.ADDRESS_UNKNOWN, f"the account has no device {wanted}")
    addresses = [
        address
        for address in account.addresses()
        if address != request.caller and wanted in (None, ids.device_of(address))
    ]
    published = [keys for address in addresses if (keys := change.device_keys(address)) is not None]
    if addresses and not published:
        raise RemoteError(Code.PREKEYS_MISSING)
    budget = spent(change, FETCHES_PER_PAIR, account.number, request.now_s, other=str(request.number))
    change.put(budget)
    rows, notices = [], []
    for keys in published:
        one_time = change.take_one_time(keys.address)
        rows.append(_bundle(keys, one_time))
        left = change.one_time_count(keys.address)
        if one_time is not None and left <= limits.PREKEYS_LOW:
            notices.append(Notify(keys.address, Notice.PREKEYS_LOW, {"count": left}))
    effects: tuple[Effect, ...] = tuple(notices)
    return Answer({"devices": rows}, effects)


def _bundle(keys: DeviceKeys, one_time: OneTimeKey | None) -> Params:
    return {
        "device": ids.device_of(keys.address),
        "identity": keys.identity,
        "signed_id": keys.signed_id,
        "signed_key": keys.signed_key,
        "signed_signature": keys.signed_signature,
        "one_time_id": one_time.key_id if one_time is not None else None,
        "one_time_key": one_time.public if one_time is not None else None,
    }


def _one_time(items: list[object]) -> dict[int, bytes]:
    """[[id, key], …] as a map.  Raises RemoteError(BAD_PARAMS)."""
    keys: dict[int, bytes] = {}
    for item in items:
        match item:
            case [int(key_id), bytes(key)] if (
                type(key_id) is int and 0 <= key_id <= U32_MAX and len(key) == KEY_BYTES
            ):
                if key_id in keys:
                    raise RemoteError(Code.BAD_PARAMS, f"one-time prekey {key_id} is there twice")
                keys[key_id] = key
            case _:
                raise RemoteError(Code.BAD_PARAMS, "each one-time prekey is [id u32, 32 bytes]")
    return keys
