"""The command line says what is wrong with an argument in plain words, without a library's own."""

import pytest

from evascore.cli.main import main


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["score", "--top-k", "many", "x"], "'--top-k': must be an integer (see --help)"),
        (["score", "--timeout", "soon", "x"], "'--timeout': must be a number (see --help)"),
        (["score", "--timeout", "-1", "x"], "'--timeout': must be at least 0.001 (see --help)"),
        (["bulk", "--format", "zz", "a", "b"], "must be one of 'jsonl', 'text'. (see --help)"),
        (["score", "--file"], "Give a value to '--file'. (see --help)"),
        (["bulk"], "Give the argument 'IN'. (see --help)"),
    ],
    ids=str,
)
def test_wrong_argument_is_refused_in_plain_words(arguments, complaint, capsys):
    assert main(arguments) == 2

    assert capsys.readouterr().err.rstrip().endswith(complaint)
