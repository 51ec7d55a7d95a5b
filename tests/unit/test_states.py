"""States of an entry as the picture in custody/states.pxd has them, and the table by address beside the counts."""

from hypothesis import given
from hypothesis import strategies as st

from wa._fastpath.custody.states import transitions
from wa._fastpath.state.addresses import AddressesFace

PICTURE = {
    "NEW": {"LINGER", "STORED", "RECEIPT", "DROPPING"},
    "LINGER": {"COMMITTING", "REFUSED", "ENDED"},
    "COMMITTING": {"STORED", "REFUSED", "DELETING"},
    "STORED": {"REFUSED", "DELETING", "ENDED"},
    "REFUSED": {"COMMITTING", "REFUSED", "ENDED"},
    "RECEIPT": {"ENDED"},
    "DELETING": {"ENDED"},
    "DROPPING": {"ENDED"},
    "ENDED": set[str](),
}


def test_the_table_of_transitions_is_the_picture() -> None:
    assert transitions() == {(before, after) for before, afters in PICTURE.items() for after in afters}


@given(st.lists(st.tuples(st.sampled_from(["add", "remove"]), st.integers(1, 90), st.integers(0, 2**64 - 1))))
def test_a_table_by_address_is_a_map(steps: list[tuple[str, int, int]]) -> None:
    table, model = AddressesFace(), dict[int, int]()
    for what, address, seq in steps:
        if what == "add":
            table.add(address, seq)
            model[address] = seq
        else:
            table.remove(address)
            model.pop(address, None)
        assert len(table) == len(model)
    assert {address: table.get(address) for address in range(1, 91)} == {a: model.get(a) for a in range(1, 91)}
