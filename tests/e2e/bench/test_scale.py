"""Several workers at one Redis: every text has one result, with one worker killed too."""

import pytest

from bench import scale
from bench.fleet import fleet
from bench.texts import make_texts
from tests.service import TINY_CHECKPOINT

TEXTS = make_texts(300)
# Many micro-batches, so that both workers get some and one can be killed in the middle.
BUDGET = {"micro_batch_bytes": "512"}
# On a busy machine a lease may lapse, and the texts of its micro-batch are scored again.
MOST_SCORED_AGAIN = len(TEXTS) // 2


@pytest.fixture(scope="module")
def scores() -> list[float]:
    """The scores of a single worker."""
    with fleet(TINY_CHECKPOINT, 1, BUDGET, is_warm=True) as workers:
        figures, found = scale.run(workers, TEXTS, [])
    assert 0 <= figures["scored_again"] <= MOST_SCORED_AGAIN
    return found


def test_two_workers_give_every_text_one_result_and_the_same_score(scores):
    with fleet(TINY_CHECKPOINT, 2, BUDGET, is_warm=True) as workers:
        figures, found = scale.run(workers, TEXTS, scores)
        with pytest.raises(scale.WrongResults, match="text 299 has"):
            scale.check(workers, list(workers.submitted_at), [*scores[:-1], scores[-1] - 1.0])
    assert len(found) == len(TEXTS)
    assert 0 <= figures["scored_again"] <= MOST_SCORED_AGAIN
    assert min(figures["share_of_each"]) > 0


def test_worker_that_is_killed_while_it_scores_loses_nothing(scores):
    with fleet(TINY_CHECKPOINT, 2, BUDGET, is_warm=True) as workers:
        figures, found = scale.run_with_a_death(workers, TEXTS, scores)
    assert figures["results"] == len(found) == len(TEXTS)
