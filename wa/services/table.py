"""Which function serves which method.  READS are answered at once from a view; WRITES need a transaction.

CHORES are changes that the server makes by itself.
"""

from collections.abc import Callable
from enum import Enum

from wa.services.accounts import register_verify
from wa.services.base import Answer, Params, Request
from wa.services.devices import devices_list, devices_remove
from wa.services.keys import keys_fetch, keys_stock, keys_upload
from wa.services.push import forget_token, push_register, push_unregister
from wa.services.receipts import receipts_status
from wa.services.server_info import server_info
from wa.services.verification import register_request_code
from wa.storage.registry import Change, View
from wa.wire.methods import Method

READS: dict[Method, Callable[[Request[View], Params], Answer]] = {
    Method.KEYS_STOCK: keys_stock,
    Method.DEVICES_LIST: devices_list,
    Method.RECEIPTS_STATUS: receipts_status,
    Method.SERVER_INFO: server_info,
}

WRITES: dict[Method, Callable[[Request[Change], Params], Answer]] = {
    Method.REGISTER_REQUEST_CODE: register_request_code,
    Method.REGISTER_VERIFY: register_verify,
    Method.KEYS_UPLOAD: keys_upload,
    Method.KEYS_FETCH: keys_fetch,
    Method.DEVICES_REMOVE: devices_remove,
    Method.PUSH_REGISTER: push_register,
    Method.PUSH_UNREGISTER: push_unregister,
}


class Chore(Enum):
    FORGET_TOKEN = 1


CHORES: dict[Chore, Callable[[Request[Change], Params], Answer]] = {Chore.FORGET_TOKEN: forget_token}

assert not READS.keys() & WRITES.keys()
assert READS.keys() | WRITES.keys() == set(Method)
assert CHORES.keys() == set(Chore)
