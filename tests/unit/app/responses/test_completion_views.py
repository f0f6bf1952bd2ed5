"""Which completions are taken, and how scores become their answer."""

import orjson
import pytest

from app.responses.completion_views import choice as choice_of
from app.responses.completion_views import completion, most_bytes
from contract.errors import RequestInvalid
from contract.grammar.completion_request import CompletionBody, Prompt
from contract.grammar.validation import validated

SCORED = {"prompt": "ab", "max_tokens": 0, "echo": True}
CONTINUED = {"prompt": "ab", "max_tokens": 1, "temperature": 0}
LM_EVAL = {**CONTINUED, "prompt": [[65]], "model": "m", "logprobs": 1, "seed": 1234, "echo": True}

TAKEN = {
    "scored": SCORED,
    "continued": CONTINUED,
    "lm-eval": LM_EVAL,
    "texts": {**SCORED, "prompt": ["a", "b"]},
    "ids": {**SCORED, "prompt": [1, 64, 319]},
    "empty-ids": {**CONTINUED, "prompt": [[]]},
    "neutral": {
        **CONTINUED,
        **{"n": 1, "best_of": 1, "top_p": 1, "stream": False, "stop": [], "logit_bias": {}},
        **{"user": "u", "presence_penalty": 0.0, "frequency_penalty": 0, "suffix": None},
    },
}


@pytest.mark.parametrize("fields", TAKEN.values(), ids=TAKEN)
def test_what_can_be_served_is_taken(fields):
    assert validated(fields, CompletionBody).prompt == fields["prompt"]


REFUSED = {
    "prompt-missing": ({"max_tokens": 0, "echo": True}, "/prompt"),
    "prompt-null": ({**SCORED, "prompt": None}, "/prompt"),
    "prompt-empty": ({**SCORED, "prompt": []}, "/prompt"),
    "prompt-mixed": ({**SCORED, "prompt": [64, "a"]}, "/prompt"),
    "prompt-true": ({**SCORED, "prompt": [True]}, "/prompt"),
    "prompt-beyond": ({**SCORED, "prompt": [[64], [320]]}, "/prompt"),
    "prompt-deep": ({**SCORED, "prompt": [[[64]]]}, "/prompt"),
    "max_tokens-missing": ({"prompt": "a", "echo": True}, "/max_tokens"),
    "max_tokens-2": ({**CONTINUED, "max_tokens": 2}, "/max_tokens"),
    "temperature-missing": ({"prompt": "a", "max_tokens": 1}, ""),
    "temperature": ({**CONTINUED, "temperature": 0.7}, "/temperature"),
    "nothing-asked": ({"prompt": "a", "max_tokens": 0}, ""),
    "logprobs": ({**SCORED, "logprobs": 21}, "/logprobs"),
    "n": ({**CONTINUED, "n": 2}, "/n"),
    "best_of": ({**CONTINUED, "best_of": 2}, "/best_of"),
    "top_p": ({**CONTINUED, "top_p": 0.9}, "/top_p"),
    "stream": ({**CONTINUED, "stream": True}, "/stream"),
    "stop": ({**CONTINUED, "stop": ["\n"]}, "/stop"),
    "suffix": ({**CONTINUED, "suffix": "secret"}, "/suffix"),
    "logit_bias": ({**CONTINUED, "logit_bias": {"64": 1}}, "/logit_bias"),
    "presence_penalty": ({**CONTINUED, "presence_penalty": 1}, "/presence_penalty"),
}


@pytest.mark.parametrize(("fields", "pointer"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_served_is_refused_and_not_ignored(fields, pointer):
    with pytest.raises(RequestInvalid) as raised:
        validated(fields, CompletionBody)
    (error,) = raised.value.details["errors"]
    assert error["pointer"] == pointer
    assert "secret" not in error["detail"]


# Of "né" and one byte more: é's first byte is the likeliest in its place but for rounding.
SCORES = {
    "bytes": {"log_prob_nats": [-3.0, -0.5, -2.0, -9.0], "rank": [4, 1, 2, 9]},
    "top_k": [
        [[65, -1.0], [66, -1.5]],
        [[0xC3, -0.499], [66, -1.5]],
        [[-62, -0.1], [0xA9, -2.0]],
        [[-62, -0.2], [32, -2.5]],
    ],
}
NE = "né".encode()


def choice(prompt: Prompt | None = None, **fields) -> dict:
    body = validated({"prompt": "x", "echo": True, **CONTINUED, **fields}, CompletionBody)
    asked = prompt or Prompt(NE, has_bos=False)
    answer = completion(
        body,
        [asked],
        [SCORES],
        request_id="r",
        model={"name": "m", "fingerprint": "0" * 12},
        now=1.5,
    )
    (one,) = answer["choices"]
    return one


def test_every_token_comes_with_its_score_and_the_likeliest():
    log_probs = choice(logprobs=2)["logprobs"]
    assert log_probs["tokens"] == ["n", "byte:c3", "byte:a9", "<eos>"]
    assert log_probs["token_logprobs"] == [-3.0, -0.5, -2.0, -0.2]
    assert log_probs["top_logprobs"] == [
        {"A": -1.0, "B": -1.5, "n": -3.0},
        {"byte:c3": -0.5, "B": -1.5},
        {"<eos>": -0.1, "byte:a9": -2.0},
        {"<eos>": -0.2, " ": -2.5},
    ]
    assert log_probs["text_offset"] == [0, 1, 1, 2]


def test_likeliest_token_is_exceeded_by_none():
    log_probs = choice(logprobs=1)["logprobs"]
    greedy = [
        nats == max(likeliest.values())
        for nats, likeliest in zip(
            log_probs["token_logprobs"], log_probs["top_logprobs"], strict=True
        )
    ]
    assert greedy == [False, True, False, True]


def test_answer_shows_what_is_asked_for():
    assert choice(echo=False)["text"] == ""
    assert choice()["text"] == "né"
    assert choice()["finish_reason"] == "stop"
    assert choice()["logprobs"] is None
    assert choice(logprobs=0)["logprobs"]["top_logprobs"] is None
    assert choice(echo=False, logprobs=1)["logprobs"]["tokens"] == ["<eos>"]
    without = choice(max_tokens=0, logprobs=1)
    assert (len(without["logprobs"]["tokens"]), without["finish_reason"]) == (3, "length")


def test_begin_of_text_id_is_shown_where_it_was_given():
    log_probs = choice(Prompt(NE, has_bos=True), logprobs=1)["logprobs"]
    assert (log_probs["tokens"][0], log_probs["token_logprobs"][0]) == ("<bos>", None)
    assert log_probs["top_logprobs"][0] is None
    assert log_probs["text_offset"] == [0, 0, 1, 1, 2]
    assert len(log_probs["tokens"]) == len(log_probs["top_logprobs"]) == 5


def test_ids_are_counted():
    body = validated({"prompt": ["x", "y"], **CONTINUED}, CompletionBody)
    prompts = [Prompt(NE, has_bos=True), Prompt(NE, has_bos=False)]
    answer = completion(
        body,
        prompts,
        [SCORES] * 2,
        request_id="r",
        model={"name": "m", "fingerprint": "0" * 12},
        now=1.5,
    )
    assert answer["usage"] == {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
    assert [one["index"] for one in answer["choices"]] == [0, 1]
    assert (answer["id"], answer["created"], answer["model"]) == ("cmpl-r", 1, "m")


@pytest.mark.parametrize("logprobs", [None, 0, 1, 20])
@pytest.mark.parametrize("echo", [True, False])
@pytest.mark.parametrize("byte", [b"a", b"\0", b"\xff"])
def test_no_choice_and_no_scores_are_above_the_most_bytes(logprobs, echo, byte):
    fields = {**CONTINUED, "echo": echo, "logprobs": logprobs}
    body = validated(fields, CompletionBody)
    prompt = Prompt(byte * 500, has_bos=True)
    # The longest numbers and names.
    nats = -1.2345678e-05
    pairs = [[200 + rank, nats] for rank in range(logprobs or 1)]
    numbers = [nats] * 501
    summary = {"num_bytes": 501, "bytes": {"log_prob_nats": numbers, "entropy_bits": numbers}}
    summary["bytes"]["rank"] = [320] * 501
    scores = {**summary, "top_k": [pairs] * 501}
    most = most_bytes(body, prompt)
    assert len(orjson.dumps(scores)) <= most
    assert len(orjson.dumps(choice_of(0, body, prompt, scores))) <= most
