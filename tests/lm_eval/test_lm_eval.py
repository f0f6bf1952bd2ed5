"""lm-eval gets the model's log-likelihoods, with an API key: by its stock client, and by ours."""

import json
import subprocess

import pytest

from contract.api_keys import new_key
from contract.settings import REPOSITORY
from contract.store.key_store import KeyStore
from model import Scorer, ScoreRequest
from tests.lm_eval.tasks import CHOICES, NAMES, PAIRS, TEXTS, write_tasks
from tests.service import TINY_CHECKPOINT, Service

LM_EVAL_PYTHON = REPOSITORY / ".venv-lm-eval" / "bin" / "python"
STOCK_WAYS = [(1, 1), (1, 3), (4, 1), (4, 3)]
"""Requests at once and prompts of each, of the stock client."""
WAYS = [*(f"{many}x{prompts}" for many, prompts in STOCK_WAYS), "evascore"]
TOLERANCE_NATS = 1e-4

pytestmark = pytest.mark.skipif(
    not LM_EVAL_PYTHON.exists(), reason="lm-eval is not installed: make test-lm-eval"
)


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return Scorer.load(str(TINY_CHECKPOINT))


@pytest.fixture(scope="module")
def answers(tmp_path_factory) -> dict[tuple[str, str], list[tuple[tuple[str, ...], tuple]]]:
    """By way and task: what was asked of the model, and the answer that lm-eval understood."""
    folder = tmp_path_factory.mktemp("tasks")
    write_tasks(folder)
    service = Service(tmp_path_factory.mktemp("service"), auth="keys").start(timeout_s=120)
    token, key = new_key("lm-eval", ["score"])
    with service.redis() as client:
        KeyStore(client).add(key)
    asked_for = {"folder": str(folder), "tasks": list(NAMES), "ways": options_of(service.url)}
    variables = {
        **{"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(folder / "hf")},
        # What the stock client sends, and what ours does.
        **{"OPENAI_API_KEY": token, "EVASCORE_API_KEY": token},
    }
    environment = ["env", *(f"{name}={value}" for name, value in variables.items())]
    try:
        run = subprocess.run(
            [*environment, LM_EVAL_PYTHON, "tests/lm_eval/evaluate.py"],
            cwd=REPOSITORY,
            input=json.dumps(asked_for),
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        assert run.returncode == 0, run.stderr[-4000:]
    finally:
        service.stop()
    found = {(way, task): [] for way in WAYS for task in NAMES}
    for line in map(json.loads, run.stdout.splitlines()):
        for asked, answer in zip(line["asked"], line["answers"], strict=True):
            found[line["way"], line["task"]].append((tuple(asked), answer))
    return found


def options_of(url: str) -> dict[str, dict]:
    """What each way asks of lm-eval's `simple_evaluate`."""
    base_url = f"model=evascore,base_url={url}/v1/completions,max_length=4095"
    stock = {
        f"{many}x{prompts}": {
            "model": "local-completions",
            "model_args": f"{base_url},num_concurrent={many}",
            "batch_size": prompts,
        }
        for many, prompts in STOCK_WAYS
    }
    return {**stock, "evascore": {"model": "evascore", "model_args": f"url={url}"}}


def expected(scorer: Scorer, *texts: str) -> tuple[float, bool]:
    """The model's own score of the last of `texts` given the one before."""
    *context, scored = (text.encode() for text in texts)
    [result] = scorer.score([ScoreRequest(context=b"".join(context), continuations=(scored,))])
    (score,) = result["continuations"]
    return score["log_likelihood_nats"], score["is_greedy"]


@pytest.mark.parametrize("way", WAYS)
def test_pairs_and_choices_have_the_models_log_likelihoods(answers, scorer, way):
    pairs, choices = answers[way, "pairs"], answers[way, "choices"]
    assert len(pairs) == len(PAIRS)
    assert len(choices) == sum(len(document["choices"]) for document in CHOICES)
    for (context, continuation), (nats, is_greedy) in pairs + choices:
        # lm-eval moves the spaces at a context's end to its continuation.
        spaces = context[len(context.rstrip()) :]
        wanted = expected(scorer, context.rstrip(), spaces + continuation)
        assert nats == pytest.approx(wanted[0], abs=TOLERANCE_NATS)
        assert is_greedy == wanted[1]


@pytest.mark.parametrize("way", WAYS)
def test_texts_have_the_models_log_likelihoods(answers, scorer, way):
    texts = answers[way, "texts"]
    assert [text for (text,), _ in texts] == TEXTS
    for (text,), answer in texts:
        nats = answer[0] if isinstance(answer, list) else answer
        assert nats == pytest.approx(expected(scorer, text)[0], abs=TOLERANCE_NATS)
