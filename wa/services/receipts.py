"""Receipts asked for after a reconnect: is a message of mine still waiting at its recipient's owner?"""

from wa import ids
from wa.errors import Code, RemoteError
from wa.services.base import Answer, Params, Request
from wa.storage.records import U64_MAX
from wa.storage.registry import View


def receipts_status(request: Request[View], params: Params) -> Answer:
    """items [[device, id], …] -> {waiting: [bool, …]} in the same order.

    Only the sender can ask: the caller is part of the envelope's identity.  Raises RemoteError(BAD_PARAMS).
    """
    items = [_item(item) for item in params["items"]]
    return Answer(
        {
            "waiting": [
                request.is_waiting(ids.address_of(params["number"], device), request.caller, envelope_id)
                for device, envelope_id in items
            ]
        }
    )


def _item(item: object) -> tuple[int, int]:
    match item:
        case [int(device), int(envelope_id)] if (
            type(device) is int
            and type(envelope_id) is int
            and 1 <= device <= ids.DEVICE_MAX
            and 0 <= envelope_id <= U64_MAX
        ):
            return device, envelope_id
    raise RemoteError(Code.BAD_PARAMS, "each item is [device 1..255, id u64]")
