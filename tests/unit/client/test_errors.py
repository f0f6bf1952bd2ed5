"""The messages of errors say where the fault is, and in how many seconds to try again."""

from evascore.errors import error_from_problem


def message_of(kind: str, retry_after_s: float | None = None, **fields: object) -> str:
    return str(error_from_problem({"type": kind, **fields}, retry_after_s))


def test_refused_upload_names_its_first_wrong_lines():
    errors = [{"pointer": "/text", "detail": "is empty", "line": n} for n in (1, 2, 5, 8)]
    named = "Line 1: /text is empty; line 2: /text is empty; line 5: /text is empty"
    assert message_of("invalid_request", detail="x", errors=errors[:3]) == (
        f"No line was accepted. {named}."
    )
    assert message_of("invalid_request", detail="x", errors=errors, limit_errors=3) == (
        f"The upload has more than 3 wrong lines, so no line was accepted. {named}; ..."
    )


def test_line_of_an_upload_that_cannot_be_read_is_named_once():
    errors = [{"pointer": "", "detail": "The line is not valid JSON: x. Mend it.", "line": 2}]
    assert message_of("invalid_request", detail="x", errors=errors) == (
        "No line was accepted. Line 2: The line is not valid JSON: x. Mend it."
    )


def test_invalid_request_says_all_that_is_wrong_with_it():
    errors = [
        {"pointer": "/top_k", "detail": "must be an integer"},
        {"parameter": "wait", "detail": "must be a number"},
        {"pointer": "", "detail": "is not a known field"},
        {"pointer": "", "detail": "give exactly one of text, text_b64"},
    ]
    assert message_of("invalid_request", detail="x", errors=errors) == (
        "The request is not valid: /top_k must be an integer; wait must be a number; a field of"
        " the request is not a known field; give exactly one of text, text_b64."
    )


def test_text_of_several_is_named_by_its_place():
    empty = {"detail": "There is nothing to score.", "errors": [{"pointer": "/items/1/text"}]}
    assert message_of("empty_text", **empty) == "/items/1/text: There is nothing to score."
    alone = {**empty, "errors": [{"pointer": "/text", "detail": "is empty"}]}
    assert message_of("empty_text", **alone) == "There is nothing to score."


def test_time_to_wait_is_in_seconds():
    detail = "The queue is full; try again after Retry-After seconds."
    assert message_of("overloaded", 19.2, detail=detail).endswith("try again after 20 s.")
    assert message_of("overloaded", detail=detail) == detail
