"""Registers the model `evascore` with lm-eval; it scores lists of requests in a few large jobs."""

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

# lm-eval registers its own models only while there is no other.
import lm_eval.models  # noqa: F401
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model
from tqdm import tqdm

from evascore.errors import error_from_problem
from evascore.http.threads import results_of
from evascore.lm_eval.facts import facts_of
from evascore.lm_eval.requests import Item, families, items_of, jobs, split_pair
from evascore.operations.calls import job_fields
from evascore.operations.matching import check_job
from evascore.sync import Client

# An evaluation goes on when the service is full or is restarted for some minutes.
PATIENCE_S = 600.0
TIMEOUT_S = 3600.0


@register_model("evascore")
class EvascoreLM(LM):  # type: ignore[misc, unused-ignore] # lm-eval is not there for mypy
    """Scores with a running service; gives the log-likelihoods that local-completions gives."""

    def __init__(
        self,
        url: str | None = None,
        concurrency: int = 4,
        model: str | None = None,
        **_ignored: Any,
    ) -> None:
        """Read the limits of the service.

        Args:
            url: URL of the service; None: that of the variable EVASCORE_URL, or the default one.
            concurrency: number of jobs at once.
            model: name of the model that scores, or `name@fingerprint`; None: the default one.
            _ignored: lm-eval's `batch_size`, `max_batch_size` and `device`; the service decides.

        Raises:
            EvascoreError: the service does not answer, or it has no worker for the model.
        """
        super().__init__()
        self._client = Client(url, timeout_s=TIMEOUT_S, patience_s=PATIENCE_S, model=model)
        self._concurrency = int(concurrency)
        info = self._client.info()
        facts = facts_of(info, model)
        self._limits = info.limits
        self._max_text_bytes = min(info.limits["max_text_bytes"], facts["max_text_bytes"])
        self._window_size = int(facts["window_size"])

    def loglikelihood(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """ln p of each continuation given its context, and whether each byte was the likeliest."""
        pairs = [split_pair(*request.args) for request in requests]
        items = [
            item
            for family in families(pairs, self._max_text_bytes)
            for item in items_of(family, self._limits["max_continuations"])
        ]
        # An empty continuation has probability 1.
        answers = [(0.0, True)] * len(requests)
        for item, result in self._results(items, len(requests), disable_tqdm):
            for place, score in zip(item.places, result["continuations"], strict=True):
                answers[place] = (score["log_likelihood_nats"], score["is_greedy"])
        for request, answer in zip(requests, answers, strict=True):
            self.cache_hook.add_partial("loglikelihood", request.args, answer)
        return answers

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        """ln p of each text; a text beyond the model's context is scored in sliding windows."""
        texts = [request.args[0].encode() for request in requests]
        items = [self._rolling(text, place) for place, text in enumerate(texts) if text]
        answers = [0.0] * len(requests)
        for item, result in self._results(items, len(requests), disable_tqdm):
            answers[item.places[0]] = result["log_likelihood_nats"]
        for request, answer in zip(requests, answers, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, answer)
        return answers

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Refuse: evascore does not generate text.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(
            "evascore scores text and does not generate any; choose tasks that are scored by"
            " log-likelihood, such as multiple choice."
        )

    def _rolling(self, text: bytes, place: int) -> Item:
        fields = job_fields(text)
        if len(text) > self._max_text_bytes:
            # Windows overlap by about half; the stride is a multiple of the model's own window.
            stride = max(self._max_text_bytes // 2 // self._window_size, 1) * self._window_size
            fields["window"] = {"size": self._max_text_bytes, "stride": stride}
        return Item(fields, len(text), [place])

    def _results(
        self, items: Iterable[Item], num_requests: int, disable_tqdm: bool
    ) -> Iterator[tuple[Item, dict[str, Any]]]:
        """Yield each item with its result; runs `concurrency` jobs at once."""
        calls = [partial(self._complete, job) for job in jobs(items, self._limits["max_items"])]
        with tqdm(total=num_requests, desc="Scoring", disable=disable_tqdm) as bar:
            for job, results in results_of(calls, self._concurrency):
                yield from zip(job, results, strict=True)
                bar.update(sum(len(item.places) for item in job))

    def _complete(self, items: list[Item]) -> tuple[list[Item], list[dict[str, Any]]]:
        """Score one job, then erase it from the service.

        Raises:
            EvascoreError: the job failed, or an item of it could not be scored.
        """
        fields = [item.fields for item in items]
        job = self._client.wait(self._client.submit(items=fields, priority="bulk"))
        self._client.erase(job)
        if job.error is not None:
            raise job.error
        check_job(job.raw, {"items": fields})
        told = job.raw["result"]["items"]
        for item in told:
            if "error" in item:
                raise error_from_problem(item["error"])
        return items, [item["result"] for item in told]
