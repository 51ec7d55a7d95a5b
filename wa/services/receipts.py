"""Receipts after a reconnect: does an envelope still wait at the owner of its recipient?"""

from collections.abc import Callable

from wa import ids
from wa.errors import Code, RemoteError
from wa.services.base import Answer, Params, Request
from wa.storage.records import U64_MAX
from wa.storage.registry import View
from wa.wire import methods


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


def add_reported(
    is_reported: Callable[[int, int, int], bool], caller: int, request: bytes, response: bytes
) -> bytes:
    """Another worker's answer, as the caller's worker passes it on.

    An envelope that ended counts as waiting while this worker still has the report for the caller: the caller must not
    take it for delivered.
    """
    asked, answered = methods.unpack(request), methods.unpack(response)
    recipients = [(ids.address_of(asked["number"], device), envelope_id) for device, envelope_id in asked["items"]]
    answered["waiting"] = [
        waits or is_reported(recipient, caller, envelope_id)
        for (recipient, envelope_id), waits in zip(recipients, answered["waiting"], strict=True)
    ]
    return methods.pack(answered)


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
