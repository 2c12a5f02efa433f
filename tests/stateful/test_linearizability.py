"""The checker itself, on a register that is written and read, against trying every order."""

from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st
from linearizability import NEVER, Operation, linearization


def register(state, operation):
    """A cell: `("write", value)` answers nothing, `("read",)` answers the value."""
    match operation.asked:
        case ("write", value):
            return [value]
        case _:
            return [state] if operation.result == state or operation.returned == NEVER else []


def write(value, called, returned=NEVER):
    return Operation("writer", ("write", value), None, called, returned)


def read(value, called, returned=NEVER):
    return Operation("reader", ("read",), value, called, returned)


def test_a_read_beside_a_write_may_see_the_old_or_the_new():
    assert linearization([write(1, 0, 3), read(0, 1, 2)], 0, register)
    assert linearization([write(1, 0, 3), read(1, 1, 2)], 0, register)


def test_a_read_after_a_write_may_not_see_the_old():
    assert linearization([write(1, 0, 1), read(0, 2, 3)], 0, register) is None


def test_two_reads_may_not_see_the_new_and_then_the_old():
    assert linearization([write(1, 0, 9), read(1, 1, 2), read(0, 3, 4)], 0, register) is None
    assert linearization([write(1, 0, 9), read(0, 1, 2), read(1, 3, 4)], 0, register)


def test_what_a_killed_process_wrote_may_be_seen_or_not():
    assert linearization([write(1, 0), read(1, 1, 2)], 0, register)
    assert linearization([write(1, 0), read(0, 1, 2)], 0, register)
    assert linearization([write(1, 0), read(1, 1, 2), read(0, 3, 4)], 0, register) is None


def test_the_order_found_is_one_that_the_model_agrees_with():
    history = [read(2, 0, 9), write(1, 0, 9), write(2, 0, 9), read(1, 0, 9)]
    found = linearization(history, 0, register)
    assert [operation.asked for operation in found] == [("write", 1), ("read",), ("write", 2), ("read",)]


def agrees(order) -> bool:
    """The order keeps what ended before what was called after, and every read sees the last write."""
    cell = 0
    for position, operation in enumerate(order):
        if any(later.returned < operation.called for later in order[position:]):
            return False
        if operation.asked == ("read",) and operation.result != cell:
            return False
        cell = operation.asked[1] if operation.asked[0] == "write" else cell
    return True


spans = st.tuples(st.integers(0, 9), st.integers(0, 9)).map(sorted)
operations = st.builds(
    lambda make, value, span: make(value, *span), st.sampled_from([write, read]), st.integers(0, 2), spans
)


@given(st.lists(operations, max_size=5))
def test_it_finds_an_order_exactly_where_one_of_all_orders_agrees(history):
    assert (linearization(history, 0, register) is not None) == any(map(agrees, permutations(history)))
