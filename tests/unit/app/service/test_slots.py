"""Slots and memory are limited in all and for each client, and come back."""

import pytest

from app.service.body_memory import BodyMemory
from app.service.slots import ConnectionSlots
from contract.errors import Overloaded


@pytest.mark.parametrize("limit", [2, 3, 8, 1024])
def test_one_client_never_takes_all_slots(limit):
    slots = ConnectionSlots(limit, "things")
    taken = [slots.take("a") for _ in range(limit)]
    assert 1 <= sum(taken) == limit // 2
    assert slots.take("b")


def test_limit_of_all_holds_for_many_clients():
    slots = ConnectionSlots(4, "things")
    assert [slots.take(client) for client in "abcdef"] == [True] * 4 + [False] * 2
    assert slots.num_held() == 4


def test_slot_that_was_given_back_can_be_taken():
    slots = ConnectionSlots(2, "things")
    slots.acquire("a")
    with pytest.raises(Overloaded, match="the limit is 2 in all and 1 for one client"):
        slots.acquire("a")
    slots.release("a")
    slots.acquire("a")
    assert slots.num_held() == 1


def test_one_client_never_takes_all_memory():
    memory = BodyMemory(100, "Things")
    memory.take("a", 50)
    with pytest.raises(Overloaded, match="100 bytes in all and half of that for one client"):
        memory.take("a", 1)
    memory.take("b", 50)
    with pytest.raises(Overloaded):
        memory.take("c", 1)
    memory.release("a", 50)
    memory.take("c", 50)
