"""The device directory against a dict, and what an idle connection costs."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from wa import limits
from wa._fastpath.conn.conntable import sizes
from wa._fastpath.custody import intake
from wa._fastpath.state.directory import DirectoryFace
from wa.wire.methods import PRIORITY, RETENTION_S, Kind

# Few numbers, so that look-ups hit, and neighbours, so that probe sequences overlap.
ADDRESSES = st.integers(1, 400).map(lambda n: (15551230000 + n) << 8 | 1)


class DirectoryMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.directory = DirectoryFace()
        self.model: dict[int, int] = {}

    @rule(address=ADDRESSES, held=st.integers(0, 1000))
    def add(self, address: int, held: int) -> None:
        self.directory.add(address, held)
        self.model[address] = held

    @rule(address=ADDRESSES)
    def remove(self, address: int) -> None:
        self.directory.remove(address)
        self.model.pop(address, None)

    @rule(address=ADDRESSES)
    def get(self, address: int) -> None:
        assert self.directory.get(address) == self.model.get(address)

    @invariant()
    def same_size(self) -> None:
        assert len(self.directory) == len(self.model)

    def teardown(self) -> None:
        for address, held in self.model.items():
            assert self.directory.get(address) == held


TestDirectory = DirectoryMachine.TestCase
TestDirectory.settings = settings(max_examples=60, stateful_step_count=80)


def test_the_directory_grows_and_shrinks_without_losing_anybody() -> None:
    directory = DirectoryFace()
    addresses = [number << 8 | 1 for number in range(15551000000, 15551020000)]
    for i, address in enumerate(addresses):
        directory.add(address, i % 1000)
    for address in addresses[::3]:
        directory.remove(address)
    for i, address in enumerate(addresses):
        assert directory.get(address) == (None if i % 3 == 0 else i % 1000)


def test_a_full_mailbox_fits_the_bit_field_of_its_device() -> None:
    directory = DirectoryFace()
    directory.add(1, 2 * limits.MAILBOX_ENVELOPES_MAX)
    assert directory.get(1) == 2 * limits.MAILBOX_ENVELOPES_MAX


def test_an_idle_connection_costs_less_than_256_bytes() -> None:
    """Its struct, its share of the directory at the worst load (0.7 * 4/5 just after growing), and its poller entry."""
    cost = sizes()
    assert cost["device"] == 40
    assert cost["conn"] + cost["device"] / 0.56 + 16 <= 256


def test_the_fast_path_and_the_catalogue_agree_on_priorities() -> None:
    assert {kind: intake.priority(kind) for kind in Kind} == PRIORITY


def test_every_kind_has_a_bounded_retention() -> None:
    assert max(RETENTION_S.values()) == limits.RETENTION_S
