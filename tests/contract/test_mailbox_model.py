"""Mailbox stores do what a dict does, whatever is asked of them: random operations, everything compared after each."""

import sys
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from mailbox_cases import (
    DUPLICATE,
    FAILED,
    MISSING,
    OK,
    RANK,
    Colliding,
    Lmdb,
    Memory,
    Store,
    body,
    delete,
    expired,
    put,
    receipt,
    refused,
    sweep,
)

from wa._fastpath.mailbox.contract import Op, Result, What, body_number

SMALL = st.integers(1, 3)
PRIORITIES = (5, 10, 100)
CODES = st.sampled_from((0, 7))
BODIES = st.binary(max_size=20) | st.just(b"x" * 9_000)
OPS = st.one_of(
    st.tuples(st.just(What.PUT), SMALL, SMALL, SMALL, st.sampled_from(PRIORITIES), st.integers(0, 8), BODIES),
    st.tuples(st.just(What.PUT_SHARED), SMALL, SMALL, SMALL, st.sampled_from(PRIORITIES), st.integers(0, 8), SMALL),
    st.tuples(st.just(What.BODY), SMALL, BODIES),
    st.tuples(st.just(What.DELETE), SMALL, SMALL, SMALL),
    st.tuples(st.just(What.DROP), SMALL, SMALL, SMALL, CODES),
    st.tuples(st.just(What.RECEIPT_PUT), SMALL, SMALL, SMALL, st.sampled_from(sorted(RANK)), st.sampled_from((0, 4))),
    st.tuples(st.just(What.RECEIPT_DELETE), SMALL, SMALL, SMALL, st.sampled_from(sorted(RANK))),
    st.tuples(st.just(What.SWEEP), st.integers(0, 8), st.integers(0, 4), CODES),
    st.tuples(st.just(What.PURGE), SMALL, CODES),
)
Ident = tuple[int, int, int]


class Model:
    """What a store must do, as plainly as possible."""

    def __init__(self) -> None:
        self.mail: dict[Ident, Op] = {}  # as they are read
        self.shares: dict[Ident, int] = {}  # the number of the body of those that share one
        self.bodies: dict[int, bytes] = {}
        self.receipts: dict[Ident, Op] = {}
        self.seq = 0

    def op(self, drawn: tuple[Any, ...]) -> Op:
        """Turns what hypothesis drew into an operation."""
        match drawn:
            case (What.DELETE | What.DROP as what, recipient, sender, id, *code):
                stored = self.mail.get((recipient, sender, id))
                op = delete(stored) if stored else Op(what, recipient, sender, id, priority=10, seq=1)
                return op._replace(what=what, code=code[0] if code else 0, expires_s=9)
            case (What.RECEIPT_PUT, owner, peer, id, level, expires_s):
                return receipt(level, id, owner, peer, expires_s=expires_s)
            case (What.RECEIPT_DELETE as what, owner, peer, id, level):
                return Op(what, owner, peer, id, level=level)
            case (What.SWEEP, now_s, count_max, code):
                # Which receipts go when not all may is nobody's business.
                return sweep(now_s, max(count_max, len(self.due_receipts(now_s))), code=code, expires_s=9)
            case (What.PURGE, recipient, code):
                return Op(What.PURGE, recipient, code=code, accepted_s=3, expires_s=9)
            case (What.BODY, number, content):
                return body(number, content)
            case (what, recipient, sender, id, priority, expires_s, content):
                self.seq += 1
                more = {"id": id, "priority": priority, "expires_s": expires_s, "body": content}
                if what == What.PUT_SHARED:
                    more["body"] = body_number(content)
                return put(self.seq, recipient, sender, **more)._replace(what=what)
        raise AssertionError(drawn)

    def batch(self, drawn: list[tuple[Any, ...]]) -> tuple[list[Op], list[Result], list[Op]]:
        ops, results, gone = [], [], []
        for item in drawn:
            op = self.op(item)
            result, expired_now = self.apply(op)
            ops.append(op)
            results.append(result)
            gone.extend(expired_now)
        self.bodies = {number: b for number, b in self.bodies.items() if number in self.shares.values()}
        return ops, results, gone

    def apply(self, op: Op) -> tuple[Result, list[Op]]:
        ident = (op.recipient, op.sender, op.id)
        match op.what:
            case What.PUT | What.PUT_SHARED:
                return self.put(ident, op), []
            case What.BODY:
                if op.id in self.bodies:
                    return FAILED, []
                self.bodies[op.id] = op.body
                return OK, []
            case What.DELETE:
                return (OK if self.take(ident) else MISSING), []
            case What.RECEIPT_PUT:
                return self.raise_receipt(op), []
            case What.RECEIPT_DELETE:
                there = self.receipts.get(ident)
                if there is None or RANK[there.level] > RANK[op.level]:
                    return (MISSING if there is None else DUPLICATE), []
                del self.receipts[ident]
                return OK, []
            case What.DROP:
                if ident not in self.mail:
                    return MISSING, []
                return OK, self.take_out([self.mail[ident]], op)
            case What.SWEEP:
                due = [row for row in self.mail.values() if 0 < row.expires_s <= op.accepted_s]
                due.sort(key=lambda row: (row.expires_s, row.recipient, -row.priority, row.seq))
                gone = self.take_out(due[: op.count_max], op)
                for key in self.due_receipts(op.accepted_s):
                    del self.receipts[key]
                return OK, gone
            case What.PURGE:
                gone = self.take_out(self.drain(op.recipient), op)
                self.receipts = {key: row for key, row in self.receipts.items() if key[0] != op.recipient}
                return OK, gone
        raise AssertionError(op)

    def put(self, ident: Ident, op: Op) -> Result:
        if ident in self.mail:
            return DUPLICATE
        if op.what == What.PUT_SHARED:
            number = int.from_bytes(op.body, sys.byteorder)
            if number not in self.bodies:
                return MISSING
            self.shares[ident] = number
            op = op._replace(what=What.PUT, body=self.bodies[number])
        self.mail[ident] = op
        return OK

    def take(self, ident: Ident) -> Op | None:
        number = self.shares.pop(ident, None)
        if number is not None and number not in self.shares.values():
            del self.bodies[number]
        return self.mail.pop(ident, None)

    def take_out(self, rows: list[Op], cause: Op) -> list[Op]:
        for row in rows:
            self.take((row.recipient, row.sender, row.id))
            if cause.code:
                self.raise_receipt(refused(row, cause))
        return [expired(row, cause.code) for row in rows]

    def raise_receipt(self, op: Op) -> Result:
        ident = (op.recipient, op.sender, op.id)
        there = self.receipts.get(ident)
        if there is None or RANK[there.level] < RANK[op.level]:
            self.receipts[ident] = op
        return OK if there is None else DUPLICATE

    def due_receipts(self, now_s: int) -> list[Ident]:
        return [key for key, row in self.receipts.items() if 0 < row.expires_s <= now_s]

    def drain(self, recipient: int) -> list[Op]:
        mine = [row for row in self.mail.values() if row.recipient == recipient]
        return sorted(mine, key=lambda row: (-row.priority, row.seq))

    def victims(self, recipient: int, now_s: int) -> list[Op]:
        mine = [row._replace(body=b"") for row in self.drain(recipient)]
        return sorted(mine, key=lambda row: (not 0 < row.expires_s <= now_s, row.priority, row.seq))


class Machine(RuleBasedStateMachine):
    backend_class: type[Lmdb] | type[Memory]

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.backend = self.backend_class(Path(self.directory.name) / "mail")
        self.store: Store = self.backend.open()
        self.model = Model()
        self.under_way: list[tuple[list[Result], list[Op]]] = []

    def teardown(self) -> None:
        self.store.close()
        self.directory.cleanup()

    @rule(drawn=st.lists(OPS, max_size=12))
    def submit(self, drawn: list[tuple[Any, ...]]) -> None:
        ops, results, gone = self.model.batch(drawn)
        self.store.submit(ops)
        self.under_way.append((results, gone))

    @rule()
    @precondition(lambda self: self.under_way)
    def collect(self) -> None:
        self.store.settle()
        done = self.store.collect()
        assert [(applied.results, applied.expired) for applied in done] == self.under_way
        assert all(applied.status == OK for applied in done)
        self.under_way.clear()

    @rule()
    @precondition(lambda self: not self.under_way)
    def reopen(self) -> None:
        self.store.close()
        self.store = self.backend.open()

    @invariant()
    @precondition(lambda self: not self.under_way)
    def holds_what_the_model_holds(self) -> None:
        boxes = {recipient: self.model.drain(recipient) for recipient in (1, 2, 3)}
        for recipient, rows in boxes.items():
            found = [row for priority in reversed(PRIORITIES) for row in self.store.read(recipient, priority)]
            assert found == rows
            assert self.store.read_victims(recipient, 4) == self.model.victims(recipient, 4)
            mine = sorted((key, row) for key, row in self.model.receipts.items() if key[0] == recipient)
            assert self.store.read_receipts(recipient) == [row for _, row in mine]
        rows = [row for box in boxes.values() for row in box]
        assert self.store.census() == [(row.recipient, row.priority, row.seq) for row in rows]
        for recipient, sender, id in self.model.mail:
            assert self.store.contains(recipient, sender, id)


class LmdbMachine(Machine):
    backend_class = Lmdb


class CollidingMachine(Machine):
    backend_class = Colliding


class MemoryMachine(Machine):
    backend_class = Memory


TestLmdbAgainstModel = LmdbMachine.TestCase
TestCollidingAgainstModel = CollidingMachine.TestCase
TestMemoryAgainstModel = MemoryMachine.TestCase
TestLmdbAgainstModel.settings = TestCollidingAgainstModel.settings = TestMemoryAgainstModel.settings = settings(
    max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
