"""The synchronous client is generated from the asynchronous one, and the file is current."""

import sys

import pytest

import unasync


def test_sync_py_is_current():
    assert unasync.TARGET.read_text() == unasync.generate(unasync.SOURCE.read_text())


def test_check_refuses_a_file_that_is_not_current(tmp_path, monkeypatch):
    stale = tmp_path / "sync.py"
    stale.write_text(unasync.TARGET.read_text() + "# changed by hand\n")
    monkeypatch.setattr(unasync, "TARGET", stale)
    monkeypatch.setattr(sys, "argv", ["unasync.py", "--check"])
    with pytest.raises(SystemExit, match="make sync-client"):
        unasync.main()
    assert stale.read_text().endswith("# changed by hand\n")


def test_asynchronous_rest_is_refused():
    source = unasync.SOURCE.read_text() + "\n\ntask = asyncio.current_task\n"
    with pytest.raises(ValueError, match="'asyncio' is left in line"):
        unasync.generate(source)


def test_rule_that_matches_nothing_is_refused():
    source = unasync.SOURCE.read_text().replace("__aenter__", "enter").replace("__aexit__", "exit")
    with pytest.raises(ValueError, match="nothing that matches"):
        unasync.generate(source)
