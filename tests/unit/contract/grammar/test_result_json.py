"""The JSON of a result is that of its lists, also where none of them is made."""

import numpy as np
import orjson
import pytest

from contract.grammar.lazy_list import LazyList
from contract.grammar.result_json import dump_result

ITEMS = [[3, -1.5], [1, 2.0]]


def not_wanted() -> list:
    raise AssertionError("the list was made")


@pytest.mark.parametrize("for_json", [lambda: tuple(map(tuple, ITEMS)), lambda: ITEMS])
def test_lazy_list_has_the_json_of_its_list(for_json):
    result = {"text": {"top_k": LazyList(not_wanted, for_json)}, "num_bytes": 2}
    assert dump_result(result) == orjson.dumps({"text": {"top_k": ITEMS}, "num_bytes": 2})


@pytest.mark.parametrize("dtype", [np.float64, np.int64, np.int32])
def test_array_has_the_json_of_its_list(dtype):
    column = np.array([[0, 3], [2, 7], [10**6, 4]], dtype)[:, 1]
    lazy = LazyList(column.tolist, lambda: np.ascontiguousarray(column))
    assert dump_result([lazy]) == orjson.dumps([column.tolist()])


def test_options_are_those_of_orjson():
    assert dump_result({"a": 1}, orjson.OPT_APPEND_NEWLINE) == b'{"a":1}\n'


def test_value_without_json_is_refused_by_its_type():
    with pytest.raises(TypeError) as raised:
        dump_result({"top_k": [object()]})
    assert str(raised.value.__cause__) == "a result holds a value of type object"
