import io
import json

import pytest

from contract.grammar.limits import DEFAULT_LIMITS, FixedLimits
from model import OutOfMemory, ScoreRequest
from model.commands import score_lines as command
from model.commands.score_lines import score_lines


def run(scorer, *lines: bytes | str | dict, limits=DEFAULT_LIMITS) -> list[dict]:
    raw = b"".join(
        (line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines
    )
    target = io.BytesIO()
    score_lines(io.BytesIO(raw), target, scorer, limits=limits)
    return [json.loads(line) for line in target.getvalue().splitlines()]


def test_lines_come_back_in_order_with_the_scorers_results(scorer):
    texts = ["long text " * 20, "a", "né", "b" * 100]

    answers = run(scorer, *({"custom_id": text[:1], "text": text} for text in texts))

    results = scorer.score([ScoreRequest(text=text.encode()) for text in texts])
    assert answers == [
        {"custom_id": text[:1], "result": result}
        for text, result in zip(texts, results, strict=True)
    ]


@pytest.mark.parametrize(
    ("line", "custom_id", "code"),
    [
        (b"nonsense", None, "malformed_body"),
        (b'{"custom_id": "a", "text": NaN}', None, "malformed_body"),
        (b'{"text": "\xff"}', None, "malformed_body"),
        (b"[" * 100_000, None, "malformed_body"),
        (b"[1]", None, "invalid_request"),
        (b'{"custom_id": "a", "text": "\\ud800"}', None, "malformed_body"),
        (b'{"custom_id": "a"}', "a", "invalid_request"),
        (b'{"custom_id": "a", "text": ""}', "a", "empty_text"),
        (b'{"custom_id": "a", "text": "%s"}' % (b"x" * 512), "a", "text_too_large"),
        (b'{"custom_id": ["a"], "text": "x"}', None, "invalid_request"),
        (b'{"custom_id": true, "text": "x"}', None, "invalid_request"),
        (b'{"custom_id": 7, "text": "x"}', None, "invalid_request"),
        (b'{"custom_id": "%s", "text": "x"}' % (b"i" * 129), None, "invalid_request"),
        (b'{"custom_id": "a", "text": "x", "text": "y"}', None, "malformed_body"),
        (b'{"text": "x", "outputs": ["top_k"], "top_k": 0}', None, "invalid_request"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_bad_line_gives_its_own_error_and_stops_nothing(scorer, line, custom_id, code):
    before, answer, after = run(scorer, {"text": "before"}, line, {"text": "after"})

    assert (answer["custom_id"], answer["error"]["code"]) == (custom_id, code)
    assert before["result"]["num_bytes"] == 6
    assert after["result"]["num_bytes"] == 5


def test_error_points_at_the_field(scorer):
    [answer] = run(scorer, {"text": "a", "outputs": ["colour"]})

    assert answer["error"]["errors"][0]["pointer"] == "/outputs/0"


def test_blank_lines_and_a_missing_last_newline_are_nothing(scorer):
    target = io.BytesIO()

    counts = score_lines(io.BytesIO(b'\n \r\n{"text": "a"}\r\n\n{"text": ""}'), target, scorer)

    assert counts == (2, 1)
    assert target.getvalue().count(b"\n") == 2


def test_overlong_line_is_refused_and_passed_over(scorer):
    limits = FixedLimits(max_body_bytes=50)

    answers = run(scorer, {"text": "x" * 200}, {"text": "y" * 30}, limits=limits)

    assert answers[0]["error"]["code"] == "body_too_large"
    assert answers[1]["result"]["num_bytes"] == 30


def test_answers_are_written_before_all_input_is_read(scorer, monkeypatch):
    monkeypatch.setattr(command, "GATHERED_BYTES", 100)
    target, written_before_line = io.BytesIO(), []

    class Source(io.BytesIO):
        def readline(self, limit=-1):
            written_before_line.append(target.getvalue().count(b"\n"))
            return super().readline(limit)

    lines = b'{"text": "%s"}\n' % (b"x" * 50) * 6
    score_lines(Source(lines), target, scorer)

    assert written_before_line == [0, 0, 2, 2, 4, 4, 6]


def test_text_that_alone_cannot_be_scored_fails_alone(scorer, monkeypatch):
    """A stand-in for a GPU on which one text does not fit."""
    score = scorer.score

    def score_with_little_memory(requests, **options):
        if any(len(request.text) > 300 for request in requests):
            raise OutOfMemory("the pass did not fit into memory")
        return score(requests, **options)

    monkeypatch.setattr(scorer, "score", score_with_little_memory)

    answers = run(scorer, *({"text": "x" * length} for length in (5, 301, 7, 8, 300)))

    codes = [answer.get("error", {}).get("code") for answer in answers]
    assert codes == [None, "out_of_memory", None, None, None]
