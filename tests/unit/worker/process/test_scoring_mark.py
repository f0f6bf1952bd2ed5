"""What the next worker of the same name reads of how the last one ended."""

import pytest

from worker.process.scoring_mark import ScoringMark


def test_first_worker_of_a_name_knows_nothing(tmp_path):
    assert not ScoringMark(tmp_path / "new", "w").was_left_idle


@pytest.mark.parametrize("is_scoring", [True, False])
def test_successor_knows_whether_the_worker_was_scoring(tmp_path, is_scoring):
    mark = ScoringMark(tmp_path, "w")
    mark.end()
    mark.begin()
    if not is_scoring:
        mark.end()
    assert ScoringMark(tmp_path, "w").was_left_idle is not is_scoring
    assert not ScoringMark(tmp_path, "other").was_left_idle


def test_folder_that_cannot_be_written_gives_no_mark(tmp_path):
    (tmp_path / "file").touch()
    mark = ScoringMark(tmp_path / "file", "w")
    mark.begin()
    mark.end()
    assert not mark.was_left_idle
