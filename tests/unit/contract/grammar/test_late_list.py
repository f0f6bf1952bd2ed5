"""A list that makes its items at first use is a list: whatever is done with it first."""

import copy
import json
import operator
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
import pytest

from contract.grammar.late_list import LateList
from contract.grammar.result_json import dump_result

ITEMS = [[3, -1.5], [1, 2.0], [2, -0.25]]


def late(items: list[Any] = ITEMS) -> LateList:
    return LateList(lambda: copy.deepcopy(items), lambda: tuple(map(tuple, items)))


def changed(change: Callable[[list[Any]], Any]) -> Callable[[list[Any]], Any]:
    """Return the list after `change`, and what it returned."""

    def use(each: list[Any]) -> Any:
        found = change(each)
        return each[:], found

    return use


USES: dict[str, Callable[[list[Any]], Any]] = {
    "len": len,
    "bool": bool,
    "repr": repr,
    "iteration": lambda each: list(iter(each)),
    "reversed": lambda each: list(reversed(each)),
    "index": lambda each: each[1],
    "negative index": lambda each: each[-1],
    "slice": lambda each: each[::2],
    "in": lambda each: [1, 2.0] in each,
    "equal": lambda each: each == ITEMS,
    "equal from the right": lambda each: operator.eq(ITEMS, each),
    "unequal": lambda each: each != ITEMS,
    "less": lambda each: each < [[4]],
    "less from the right": lambda each: operator.lt([[4]], each),
    "sum": lambda each: operator.add(each, [[9]]),
    "sum from the right": lambda each: operator.add([[9]], each),
    "product": lambda each: each * 2,
    "product from the right": lambda each: 2 * each,
    "sorted": sorted,
    "min": min,
    "find": lambda each: each.index([2, -0.25]),
    "count": lambda each: each.count([1, 2.0]),
    "copy": lambda each: each.copy(),
    "shallow copy": copy.copy,
    "deep copy": copy.deepcopy,
    "pickle": lambda each: pickle.loads(pickle.dumps(each)),  # noqa: S301 - our own
    "json": json.dumps,
    "json, indented": lambda each: json.dumps(each, indent=1),
    "unpacked": lambda each: (*each,),
    "assigned to names": lambda each: (lambda first, *rest: (first, rest))(*each),
    "tuple": tuple,
    "array": lambda each: np.array(each).tolist(),
    "nested loop": lambda each: [number for pair in each for number in pair],
    "append": changed(lambda each: each.append(1)),
    "insert": changed(lambda each: each.insert(0, 1)),
    "extend": changed(lambda each: each.extend([1])),
    "extend itself": changed(lambda each: each.extend(each)),
    "extend another": lambda each: [[0]].extend(each),
    "add in place": changed(lambda each: each.__iadd__([1])),
    "multiply in place": changed(lambda each: each.__imul__(2)[:]),
    "pop": changed(lambda each: each.pop()),
    "remove": changed(lambda each: each.remove([1, 2.0])),
    "clear": changed(lambda each: each.clear()),
    "sort": changed(lambda each: each.sort()),
    "reverse": changed(lambda each: each.reverse()),
    "set": changed(lambda each: each.__setitem__(0, 1)),
    "set a slice": changed(lambda each: each.__setitem__(slice(0, 2), [])),
    "delete": changed(lambda each: each.__delitem__(0)),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES.keys())
def test_first_use_finds_the_items(use):
    assert use(late()) == use(copy.deepcopy(ITEMS))


def test_every_method_of_a_list_is_its_own():
    inherited = {"__new__", "__getattribute__", "__class_getitem__", "__hash__", "__doc__"}
    assert vars(list).keys() - inherited <= vars(LateList).keys()


def test_items_are_made_once():
    calls: list[int] = []
    each = LateList(lambda: calls.append(1) or [[1]], list)
    each[0].append(2)
    assert (each, calls) == ([[1, 2]], [1])


def test_plain_list_shares_nothing_with_it():
    each = late()
    plain = each.plain()
    assert (type(plain), plain) == (list, ITEMS)
    plain.clear()
    assert each == ITEMS
    each.append(1)
    assert each.plain() == [*ITEMS, 1]


def test_other_lists_take_its_items():
    plain: list[Any] = [0]
    plain += late()
    plain[:1] = late()
    assert plain == ITEMS + ITEMS


def fail_to_make() -> list[Any]:
    raise AssertionError("its items were made")


@pytest.mark.parametrize(
    "column", [np.array([1.5, -0.0, 1e-7, np.nan, -np.inf]), np.array([1, 2, 320])]
)
def test_json_is_that_of_the_items_and_makes_none(column):
    nested = {"of": {"bytes": LateList(fail_to_make, lambda: column)}}
    assert dump_result(nested) == orjson.dumps({"of": {"bytes": column.tolist()}})
    pairs = LateList(fail_to_make, late().for_json)
    assert dump_result([pairs, {"items": pairs}]) == orjson.dumps([ITEMS, {"items": ITEMS}])


def test_json_of_a_changed_list_has_the_change():
    each = late()
    each[0] = "changed"
    assert dump_result({"a": each}) == orjson.dumps({"a": ["changed", *ITEMS[1:]]})


def test_reader_of_its_memory_fails_before_the_first_use():
    each = late()
    with pytest.raises(TypeError):
        orjson.dumps(each)
    assert len(each) == len(ITEMS)
    assert orjson.dumps(each) == orjson.dumps(ITEMS)


def test_value_without_a_json_form_is_named_by_its_type_alone():
    with pytest.raises(TypeError) as caught:
        dump_result({"text": {"a secret"}})
    assert "set" in str(caught.value.__cause__)
    assert "secret" not in f"{caught.value} {caught.value.__cause__}"
