"""A bench for services: one registry of each kind, an injected clock and a seeded random source."""

import random
from dataclasses import dataclass, field

from wa import ids
from wa.errors import RemoteError
from wa.services.base import Request, Site
from wa.services.table import READS, WRITES
from wa.storage.lmdb_registry import LmdbRegistry
from wa.storage.memory_registry import MemoryRegistry
from wa.storage.registry import View
from wa.wire import methods

ALICE = 15551230001
BOB = 15551230002
KEY_A, KEY_B, KEY_C = (bytes([n]) * 32 for n in (1, 2, 3))
PEER = "203.0.113.7"


def dump(view: View) -> list[object]:
    """Everything in the registry."""
    devices = list(view.devices())
    addresses = [device.address for device in devices]
    return [
        list(view.accounts()),
        devices,
        [view.device_keys(address) for address in addresses],
        [list(view.one_time_keys(address)) for address in addresses],
        [view.push_token(address) for address in addresses],
        list(view.codes()),
        list(view.budgets()),
    ]


@dataclass
class Bench:
    registry: LmdbRegistry | MemoryRegistry
    now_ms: int = 1_800_000_000_000
    workers: int = 1
    waiting: set[tuple[int, int, int]] = field(default_factory=set)
    seeded: random.Random = field(default_factory=lambda: random.Random(7))

    def advance(self, seconds: int) -> None:
        self.now_ms += seconds * 1_000

    def call(self, method, caller, params=None, *, key=b"", peer=PEER):
        """One request in a transaction of its own.  A RemoteError must leave the registry as it was."""
        spec = methods.spec_of(method)
        checked = methods.check(spec, methods.pack(params or {}))
        site = Site(self.seeded.randrange, self.seeded.randbytes, b"p" * 32, self.workers, "0.1")

        def request(registry):
            waiting = lambda *item: item in self.waiting  # noqa: E731
            return Request(registry, site, caller, key, peer, self.now_ms, waiting)

        if method in READS:
            with self.registry.read() as view:
                return READS[method](request(view), checked)
        with self.registry.write() as change:
            before = dump(change)
            try:
                return WRITES[method](request(change), checked)
            except RemoteError:
                assert dump(change) == before, "a request that raises has changed nothing"
                raise

    def request_code(self, number, *, peer=PEER):
        answer = self.call(methods.Method.REGISTER_REQUEST_CODE, ids.address_of(number, 0), peer=peer)
        (effect,) = answer.effects
        assert effect.number == number
        return effect.code

    def verify(self, number, code, *, key, mode="replace", name="phone"):
        params = {"code": code, "mode": mode, "name": name}
        return self.call(methods.Method.REGISTER_VERIFY, ids.address_of(number, 0), params, key=key)

    def register(self, number, *, key, mode="replace", name="phone"):
        return self.verify(number, self.request_code(number), key=key, mode=mode, name=name).body["address"]

    def upload(self, address, one_time=(), *, identity=b"i" * 32, signed_id=1):
        params = {
            "identity": identity,
            "signed_id": signed_id,
            "signed_key": b"s" * 32,
            "signed_signature": b"g" * 64,
            "one_time": [[key_id, key_id.to_bytes(32, "big")] for key_id in one_time],
        }
        return self.call(methods.Method.KEYS_UPLOAD, address, params)

    def fetch(self, caller, number, device=None):
        params = {"number": number} | ({} if device is None else {"device": device})
        return self.call(methods.Method.KEYS_FETCH, caller, params)

    def stock(self, address):
        return self.call(methods.Method.KEYS_STOCK, address).body

    def devices(self, caller, number):
        return self.call(methods.Method.DEVICES_LIST, caller, {"number": number}).body["devices"]
