"""Model names in requests: accepted, refused, with and without a fingerprint."""

import pytest

from contract.grammar.model_names import MAX_NAME_CHARS, is_model_name, read_reference

FINGERPRINT = "0123456789ab"


@pytest.mark.parametrize("name", ["demo", "EvaByte/EvaByte", "a", "v1.0_x-y", "1/2", "x" * 96])
def test_a_name_is_read_alone_and_with_a_fingerprint(name):
    assert read_reference(name) == (name, "")
    assert read_reference(f"{name}@{FINGERPRINT}") == (name, FINGERPRINT)
    assert str(read_reference(f"{name}@{FINGERPRINT}")) == f"{name}@{FINGERPRINT}"
    assert is_model_name(name)


@pytest.mark.parametrize(
    "text",
    [
        *("", " demo", "demo\n", "a b", "a/b/c", "/a", "a/", "-a", ".a", "a/.b", "?", "+", "é"),
        *("@", "demo@", f"@{FINGERPRINT}", "demo@0123456789a", "demo@0123456789AB"),
        *(f"demo@{FINGERPRINT}0", f"demo@{FINGERPRINT}@{FINGERPRINT}", "x" * (MAX_NAME_CHARS + 1)),
    ],
    ids=repr,
)
def test_anything_else_is_no_reference(text):
    assert read_reference(text) is None
    assert not is_model_name(text)
