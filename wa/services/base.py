"""The one shape of all services.

    def keys_stock(request: Request[View], params: Params) -> Answer

A service function is policy only.  It gets verified parameters (`methods.check`), an open view or transaction of the
registry, the caller and the time.  It returns an answer and the effects to carry out once the transaction is durable.
It has no socket, no clock and no randomness of its own, so it may run twice.

Errors: a function that *raises* RemoteError has changed nothing; every check comes before the first change.  A failure
whose change must be kept, such as the count of wrong codes, is *returned* as an answer with that status.  Only
STORAGE_FAILED may come out of the middle; its transaction is undone.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from wa import ids
from wa.errors import EXPLANATION, Code, RemoteError
from wa.storage.registry import View
from wa.wire.methods import Notice

Params = dict[str, Any]
V_co = TypeVar("V_co", bound=View, covariant=True)


@dataclass(frozen=True)
class Site:
    """What the services of one worker get once.

    random_below, random_bytes: a CSPRNG (`secrets`).  pepper: 32 secret bytes of this server, kept outside the
    registry.  workers: how many share the budgets per IP address.
    """

    random_below: Callable[[int], int]
    random_bytes: Callable[[int], bytes]
    pepper: bytes
    workers: int
    version: str


@dataclass(frozen=True)
class Request(Generic[V_co]):
    """One request.  caller: its address (device 0 while registering); peer: its IP address, "" from a worker.

    is_waiting(recipient, sender, id): whether the envelope is in custody here (`Loop.is_waiting`).
    """

    registry: V_co
    site: Site
    caller: int
    static_key: bytes
    peer: str
    now_ms: int
    is_waiting: Callable[[int, int, int], bool]

    @property
    def now_s(self) -> int:
        return self.now_ms // 1_000

    @property
    def number(self) -> ids.Number:
        return ids.number_of(self.caller)

    @property
    def device(self) -> int:
        return ids.device_of(self.caller)


@dataclass(frozen=True)
class SendCode:
    """Bring a verification code to its number."""

    number: int
    code: str


@dataclass(frozen=True)
class AddDevice:
    """Take envelopes for this device from now on, admit connections that prove its key, and make the requesting one its
    live connection.
    """

    address: int
    static_key: bytes


@dataclass(frozen=True)
class RemoveDevice:
    """Close its connection with `code` and purge its mailbox."""

    address: int
    code: Code


@dataclass(frozen=True)
class Notify:
    address: int
    notice: Notice
    body: Params


Effect = SendCode | AddDevice | RemoveDevice | Notify


@dataclass(frozen=True)
class Answer:
    """status OK, or the error whose changes are kept; effects are carried out in this order after the
    commit.
    """

    body: Params
    effects: tuple[Effect, ...] = field(default=())
    status: Code = Code.OK


def failed(error: RemoteError) -> Answer:
    """The answer to a request that changed nothing."""
    body: Params = {"detail": error.detail or EXPLANATION[error.code]}
    if error.retry_after_ms:
        body["retry_after_ms"] = error.retry_after_ms
    return Answer(body, status=error.code)
