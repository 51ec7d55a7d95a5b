"""Budgets: caps on how often something may be done within a window of time, counted in the registry.

A window begins with the first use and has a fixed length.  Neither a restart nor a clock that goes back resets it.
"""

import hashlib
import ipaddress
from dataclasses import dataclass

from wa import limits
from wa.errors import Code, RemoteError
from wa.storage.records import Budget, ip_subject
from wa.storage.registry import View

DAY_S = 86_400
HOUR_S = 3_600
WINDOW_S_MAX = DAY_S  # older budgets may be swept


@dataclass(frozen=True)
class Rule:
    """`count_max` uses within `window_s` seconds."""

    name: str
    window_s: int
    count_max: int


CODES_PER_NUMBER = Rule("codes", DAY_S, limits.CODES_PER_NUMBER_PER_DAY_MAX)
CODES_PER_IP = Rule("codes", HOUR_S, limits.CODES_PER_ADDRESS_PER_HOUR_MAX)
FETCHES_PER_PAIR = Rule("fetches", DAY_S, limits.KEY_FETCHES_PER_PAIR_PER_DAY_MAX)

assert all(rule.window_s <= WINDOW_S_MAX for rule in (CODES_PER_NUMBER, CODES_PER_IP, FETCHES_PER_PAIR))


def spent(view: View, rule: Rule, subject: int, now_s: int, *, other: str = "", share: int = 1) -> Budget:
    """The budget after one more use; the caller puts it once all its checks have passed.

    other: the second party of a budget per pair.  share: how many workers count their own part of this budget.
    Raises RemoteError(BUDGET_EXHAUSTED) with the time until the window ends.
    """
    name = f"{rule.name}/{other}" if other else rule.name
    count_max = max(1, rule.count_max // share)
    before = view.budget(subject, name)
    if before is None or before.window_start_s + rule.window_s <= now_s:
        return Budget(subject, name, now_s, 1)
    if before.count >= count_max:
        wait_s = min(before.window_start_s + rule.window_s - now_s, rule.window_s)
        raise RemoteError(
            Code.BUDGET_EXHAUSTED,
            f"at most {count_max} of these in {rule.window_s // HOUR_S} h",
            retry_after_ms=wait_s * 1_000,
        )
    return Budget(subject, name, before.window_start_s, before.count + 1)


def ip_budget_subject(peer: str, pepper: bytes) -> int:
    """The budget subject of a client's IP address: a keyed hash, so that the registry holds no addresses.

    An IPv6 client counts as its /64: it can use every address of it.  Clients without an address ("") share one.
    """
    address = ipaddress.ip_address(peer.split("%", 1)[0] or "0.0.0.0")
    if isinstance(address, ipaddress.IPv6Address):
        address = address.ipv4_mapped or ipaddress.IPv6Network((address, 64), strict=False).network_address
    return ip_subject(
        hashlib.blake2b(address.packed, key=pepper, person=b"wa ip budget", digest_size=8).digest()
    )
