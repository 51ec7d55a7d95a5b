"""Push: where an offline device is woken.

This service only keeps what a device registers; the gateway wakes it (wa/runtime/push_gateway.py).  A token is stored
as it is, and leaves only to the gateway.
"""

import re

from wa.errors import Code, RemoteError
from wa.services.base import Answer, Params, Request
from wa.services.devices import own_account
from wa.storage.records import PushToken
from wa.storage.registry import Change

PLATFORM = re.compile(r"[a-z0-9][a-z0-9._-]*")


def push_register(request: Request[Change], params: Params) -> Answer:
    """Takes the place of an earlier token.  -> {}

    Raises RemoteError(NOT_REGISTERED, BAD_PARAMS).
    """
    platform, token = params["platform"], params["token"]
    own_account(request)
    if not PLATFORM.fullmatch(platform):
        raise RemoteError(Code.BAD_PARAMS, "a platform is lower-case letters, digits, dots, dashes and underscores")
    if not token.isprintable():
        raise RemoteError(Code.BAD_PARAMS, "a token is printable text")
    request.registry.put(PushToken(request.caller, platform, token, request.now_s))
    return Answer({})


def push_unregister(request: Request[Change], params: Params) -> Answer:
    """-> {}, also when there was no token."""
    request.registry.delete_push_token(request.caller)
    return Answer({})


def forget_token(request: Request[Change], params: Params) -> Answer:
    """Deletes `token`, which the push service does not know any more.  A newer token of the device stays."""
    found = request.registry.push_token(request.caller)
    if found is not None and found.token == params["token"]:
        request.registry.delete_push_token(request.caller)
    return Answer({})
