"""Scripts run on connections of their own: each call gets its answer, whatever breaks."""

import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from contract.store.connection.broker import connect
from contract.store.connection.script_runner import LARGE_BYTES, ScriptRunner
from tests.conftest import wait_until

THREADS = 32
ECHO = "if ARGV[1] == '3' then return redis.error_reply('ERR three') end return {KEYS[1], ARGV[1]}"


@pytest.fixture
def scripts(settings):
    """A runner of scripts, and a script that returns what it is given."""
    with connect(settings) as client:
        yield ScriptRunner(client), client.register_script(ECHO)


def ask(scripts, number):
    runner, echo = scripts
    return runner.run(echo, [f"key {number}"], [number])


def answer_to(number):
    return [f"key {number}".encode(), str(number).encode()]


def num_clients(redis_client):
    return len(redis_client.client_list())


def test_each_thread_gets_its_own_answers_and_connections_are_used_again(scripts, redis_client):
    ask(scripts, 1)
    before = num_clients(redis_client)
    numbers = range(10, 2010)
    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(lambda number: ask(scripts, number), numbers))
    assert found == list(map(answer_to, numbers))
    assert num_clients(redis_client) <= before + THREADS


def test_error_of_one_call_is_no_error_of_its_neighbours(scripts):
    def outcome(number):
        try:
            return ask(scripts, number)
        except redis.ResponseError as error:
            return str(error)

    numbers = list(range(6)) * 50
    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(outcome, numbers))
    assert found == ["three" if number == 3 else answer_to(number) for number in numbers]


def test_script_that_redis_forgot_is_loaded_again(scripts, redis_client):
    assert ask(scripts, 1) == answer_to(1)
    redis_client.script_flush()
    assert ask(scripts, 2) == answer_to(2)


def test_calls_are_repeated_when_the_connection_is_cut(scripts, redis_client):
    ask(scripts, 1)
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in range(20):
            calls = [pool.submit(ask, scripts, number) for number in range(10, 20)]
            redis_client.client_kill_filter(_type="normal", skipme=True)
            assert [call.result() for call in calls] == list(map(answer_to, range(10, 20)))
            # Those that were idle are dead. A call would use up its one repetition on them.
            scripts[0].drop_idle()


def test_silent_redis_ends_every_call_in_time_and_a_later_one_works(scripts, redis_server):
    ask(scripts, 1)
    process = redis_server.process
    process.send_signal(signal.SIGSTOP)
    try:
        began_at = time.monotonic()
        with ThreadPoolExecutor(THREADS) as pool:
            calls = [pool.submit(ask, scripts, number) for number in range(10, 10 + THREADS)]
            errors = [call.exception() for call in calls]
        assert {type(error) for error in errors} <= {redis.TimeoutError, redis.ConnectionError}
        # Without the limit they would wait until Redis goes on.
        assert time.monotonic() - began_at < 60
    finally:
        process.send_signal(signal.SIGCONT)
    assert ask(scripts, 2) == answer_to(2)


def test_redis_that_was_started_again_is_found_by_every_call(scripts, redis_server):
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda number: ask(scripts, number), range(10, 110)))
        redis_server.kill()
        with pytest.raises(redis.ConnectionError):
            ask(scripts, 2)
        redis_server.start()
        numbers = range(10, 10 + THREADS)
        assert list(pool.map(lambda number: ask(scripts, number), numbers)) == list(
            map(answer_to, numbers)
        )


def test_dropped_connections_are_closed_and_later_calls_open_new_ones(scripts, redis_client):
    ask(scripts, 1)
    before = num_clients(redis_client)
    scripts[0].drop_idle()
    wait_until(lambda: num_clients(redis_client) == before - 1)
    assert ask(scripts, 2) == answer_to(2)


def test_connection_of_a_large_command_is_closed_with_its_memory(scripts, redis_client):
    runner, echo = scripts
    ask(scripts, 1)
    before = num_clients(redis_client)
    large = b"x" * (LARGE_BYTES + 1)
    assert runner.run(echo, ["x"], [large]) == [b"x", large]
    wait_until(lambda: num_clients(redis_client) == before - 1)
    assert ask(scripts, 2) == answer_to(2)
