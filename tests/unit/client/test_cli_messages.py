"""The command line says what is wrong with an argument in plain words, without a library's own."""

import pytest

from evascore.cli.common import named_headers
from evascore.cli.main import main

KEY_IN_HEADER = "Set the variable EVASCORE_API_KEY instead."


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["score", "--top-k", "many", "x"], "'--top-k': must be an integer (see --help)"),
        (["score", "--timeout", "soon", "x"], "'--timeout': must be a number (see --help)"),
        (["score", "--timeout", "-1", "x"], "'--timeout': must be at least 0.001 (see --help)"),
        (["bulk", "--format", "zz", "a", "b"], "'parquet', 'arrow', 'dataset'. (see --help)"),
        (["score", "--file"], "Give a value to '--file'. (see --help)"),
        (["bulk"], "Give the argument 'IN'. (see --help)"),
        (["score", "-H", "x", "x"], "Give --header in the form 'Name: value'."),
        (["score", "-H", ": x", "x"], "Give --header in the form 'Name: value'."),
        (["score", "-H", "X Y: x", "x"], "must be ASCII letters, digits and dashes."),
        (["score", "-H", "Authorization: Bearer evs_x", "x"], KEY_IN_HEADER),
        (["score", "-H", "AUTHORIZATION:bearer  evs_x", "x"], KEY_IN_HEADER),
        (["next-chars", "-H", "authorization: BEARER evs_x", "x"], KEY_IN_HEADER),
        (["bench", "--remote", "-H", "Authorization: Bearer evs_x"], KEY_IN_HEADER),
    ],
    ids=str,
)
def test_wrong_argument_is_refused_in_plain_words(arguments, complaint, capsys):
    assert main(arguments) == 2

    assert capsys.readouterr().err.rstrip().endswith(complaint)


def test_header_of_another_kind_of_authorization_is_taken():
    assert named_headers(["Authorization: Basic bearer"]) == {"Authorization": "Basic bearer"}
    assert named_headers(["X-Key: Bearer a"]) == {"X-Key": "Bearer a"}


COMMANDS = {
    "score": ["score", "x"],
    "next-chars": ["next-chars", "x"],
    "doctor": ["doctor"],
    "bulk": ["bulk", __file__, "{folder}/out"],
    "bench": ["bench", "--remote"],
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
@pytest.mark.parametrize(
    ("name", "value", "url"),
    [
        ("ALL_PROXY", "socks4://proxy.test:1", "http://a.test"),
        ("http_proxy", "http://a:b", "http://a.test"),
        ("SSL_CERT_FILE", "/missing", "https://a.test"),
    ],
)
def test_wrong_network_variable_is_reported_in_one_line(
    command, name, value, url, monkeypatch, capsys, tmp_path
):
    monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    arguments = [argument.format(folder=tmp_path) for argument in command]
    assert main([*arguments, "--url", url]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert name in line
    assert "unset it" in line
