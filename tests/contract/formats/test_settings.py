"""Settings: refused by name when wrong, nested limits, and each one documented as it is."""

import re
import types
import typing
from pathlib import Path

import pytest
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from contract.setting_refusals import DERIVED, RENAMED, accepted_values, environment_name
from contract.settings import NESTED, REPOSITORY, Settings, SettingsInvalid, load_settings

DOCUMENT = REPOSITORY / "docs" / "settings.md"


def refusal(**variables: str) -> str:
    """The line that `load_settings` refuses these variables with."""
    with pytest.raises(SettingsInvalid) as raised:
        load_settings(variables)
    line = str(raised.value)
    assert "\n" not in line
    return line


def test_defaults_are_valid():
    assert load_settings({}).port == 8000


def test_value_comes_from_its_environment_variable():
    assert load_settings({"EVASCORE_PORT": "8123", "OTHER_PORT": "1"}).port == 8123


def test_process_environment_is_read_when_none_is_given(monkeypatch):
    monkeypatch.setenv("EVASCORE_PORT", "8124")
    assert load_settings().port == 8124


@pytest.mark.parametrize(
    ("misspelt", "meant"),
    [
        ("EVASCORE_PROT", "EVASCORE_PORT"),
        ("EVASCORE_REDIS", "EVASCORE_REDIS_URL"),
        ("EVASCORE_MAX_TEXT_BYTE", "EVASCORE_MAX_TEXT_BYTES"),
        ("evascore_prot", "EVASCORE_PORT"),
    ],
)
def test_unknown_name_is_refused_with_the_nearest_one(misspelt, meant):
    assert f"did you mean {meant}?" in refusal(**{misspelt: "1"})


def test_unknown_name_near_nothing_points_to_the_document():
    assert "docs/settings.md" in refusal(EVASCORE_ZZZZZZ="1")


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_former_name_is_refused_with_the_new_one(old, new):
    line = refusal(**{environment_name(old): "1"})
    assert line == (
        f"{environment_name(old)} is not a setting; did you mean {environment_name(new)}?"
    )
    assert new in Settings.model_fields


@pytest.mark.parametrize(("derived", "source"), DERIVED.items())
def test_former_setting_that_follows_from_another_is_refused_with_that(derived, source):
    line = refusal(**{environment_name(derived): "1"})
    assert line.endswith(f"set {environment_name(source)} instead")
    assert isinstance(getattr(Settings, derived), property)
    larger = load_settings({environment_name(source): str(getattr(load_settings({}), source) * 2)})
    assert getattr(larger, derived) == 2 * getattr(load_settings({}), derived)


@pytest.mark.parametrize("connections", [16, 17, 63, 512, 1000, 4096])
def test_some_connections_stay_free_of_requests_that_hold_one_for_long(connections):
    settings = load_settings({"EVASCORE_WEB_CONNECTIONS": str(connections)})
    limits = (settings.max_waiters, settings.max_streams, settings.max_uploads)
    # Of two, one client gets one.
    assert min(limits) >= 2
    assert sum(limits) < connections


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("EVASCORE_PORT", "0"),
        ("EVASCORE_PORT", "65536"),
        ("EVASCORE_PORT", "http"),
        ("EVASCORE_PORT", ""),
        ("EVASCORE_MICRO_BATCH_BYTES", "0"),
        ("EVASCORE_MICRO_BATCH_BYTES", "-1"),
        ("EVASCORE_MICRO_BATCH_BYTES", "16k"),
        ("EVASCORE_LEASE_S", "0"),
        ("EVASCORE_LEASE_S", "nan"),
        ("EVASCORE_DEADLINE_S", "inf"),
        ("EVASCORE_DTYPE", "float16"),
        ("EVASCORE_DEVICE", "gpu"),
        ("EVASCORE_DEVICE", "cpu:0"),
        ("EVASCORE_DEVICE", "cuda:x"),
        ("EVASCORE_DEVICES", ""),
        ("EVASCORE_DEVICES", "cuda:0,"),
        ("EVASCORE_DEVICES", "cuda:0,auto"),
        ("EVASCORE_DEVICES", "cuda:1,cuda:1"),
        ("EVASCORE_TRUSTED_PROXIES", "edge"),
        ("EVASCORE_TRUSTED_PROXIES", "10.0.0.1,10.0.0.0/33"),
        ("EVASCORE_TRUSTED_PROXIES", "10.0.0.1/8"),
        ("EVASCORE_LOG_LEVEL", "LOUD"),
        ("EVASCORE_REDIS_URL", "http://127.0.0.1"),
        ("EVASCORE_REDIS_URL", ""),
        ("EVASCORE_TRACES_URL", ""),
        ("EVASCORE_TRACES_URL", "grpc://127.0.0.1:4317"),
        ("EVASCORE_TRACES_URL", "http://127.0.0.1:port"),
        ("EVASCORE_REDIS_URL", "redis://127.0.0.1:port"),
        ("EVASCORE_REDIS_URL", "redis://[::1"),
        ("EVASCORE_WORKER_NAME", "two words"),
        ("EVASCORE_WORKER_NAME", ""),
        ("EVASCORE_MODEL", ""),
        ("EVASCORE_MODEL_NAME", ""),
        ("EVASCORE_MODEL_REVISION", ""),
        ("EVASCORE_MODEL_REVISION", "two words"),
        ("EVASCORE_MODEL_REVISION", "../main"),
    ],
)
def test_bad_value_is_refused_by_name(name, value):
    assert refusal(**{name: value}).startswith(f"{name}: ")


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("EVASCORE_PORT", "http", "must be an integer from 1 to 65535, not 'http'"),
        ("EVASCORE_LEASE_S", "soon", "must be a number above 0 (seconds), not 'soon'"),
        ("EVASCORE_MICRO_BATCH_BYTES", "16k", "must be an integer from 1 (bytes), not '16k'"),
        ("EVASCORE_DTYPE", "fp8", "must be one of auto, float32, bfloat16, not 'fp8'"),
        ("EVASCORE_REPRODUCIBLE", "maybe", "must be yes or no, not 'maybe'"),
        ("EVASCORE_DEVICE", "gpu", "must be auto, cpu, cuda or cuda:N, not 'gpu'"),
        ("EVASCORE_MODEL", "", "must not be empty; give text, or unset it for the default"),
        ("EVASCORE_PORT", "9" * 1000, f"must be an integer from 1 to 65535, not '{'9' * 59}"),
    ],
)
def test_refusal_says_what_is_accepted_in_our_words(name, value, line):
    assert refusal(**{name: value}) == f"{name}: {line}"


def test_limit_that_another_makes_unreachable_is_refused_with_the_remedy():
    assert refusal(EVASCORE_DEADLINE_S="100") == (
        "EVASCORE_MICRO_BATCH_TIMEOUT_S (300) must not exceed EVASCORE_DEADLINE_S (100.0); "
        "lower the first or raise the second"
    )


def test_every_bad_value_is_named():
    line = refusal(EVASCORE_PORT="0", EVASCORE_DTYPE="int4", EVASCORE_LEASE_S="soon")
    assert all(name in line for name in ("EVASCORE_PORT", "EVASCORE_DTYPE", "EVASCORE_LEASE_S"))


@pytest.mark.parametrize(("host", "bind"), [("127.0.0.1", "127.0.0.1:8000"), ("::1", "[::1]:8000")])
def test_bind_is_written_as_in_urls(host, bind):
    assert load_settings({"EVASCORE_HOST": host}).bind == bind


def test_password_in_the_redis_url_is_not_shown():
    settings = load_settings({"EVASCORE_REDIS_URL": "redis://:hunter2@127.0.0.1:6379/0"})
    assert "hunter2" in settings.redis
    assert "hunter2" not in repr(settings)
    assert "hunter2" not in refusal(EVASCORE_REDIS_URL="http://:hunter2@127.0.0.1")


@pytest.mark.parametrize(
    ("url", "complete"),
    [
        ("redis://redis:6379/0", "redis://:p%40ss%2F1@redis:6379/0"),
        ("rediss://me@[::1]:6379/0", "rediss://me:p%40ss%2F1@[::1]:6379/0?ssl_cert_reqs=required"),
    ],
)
def test_password_file_completes_the_redis_url(tmp_path, url, complete):
    file = tmp_path / "password"
    file.write_text("p@ss/1\n")
    settings = load_settings({"EVASCORE_REDIS_URL": url, "EVASCORE_REDIS_PASSWORD_FILE": str(file)})
    assert settings.redis == complete
    assert "p%40ss" not in repr(settings)


@pytest.mark.parametrize(
    ("url", "content"),
    [
        ("redis://redis", None),
        ("redis://redis", b"\n"),
        ("redis://redis", b"\xff"),
        ("unix:///x", b"x"),
    ],
    ids=["missing", "empty", "not_text", "no_host"],
)
def test_password_file_that_cannot_be_used_is_refused(tmp_path, url, content):
    file = tmp_path / "password"
    if content is not None:
        file.write_bytes(content)
    line = refusal(EVASCORE_REDIS_URL=url, EVASCORE_REDIS_PASSWORD_FILE=str(file))
    assert line.startswith("EVASCORE_REDIS_PASSWORD_FILE: ")


@pytest.mark.parametrize(("smaller", "larger"), NESTED, ids=lambda name: name)
def test_limits_nest(smaller, larger):
    settings = load_settings({})
    assert getattr(settings, smaller) <= getattr(settings, larger)
    line = refusal(**{environment_name(smaller): str(int(getattr(settings, larger)) + 1)})
    assert environment_name(smaller) in line


@pytest.mark.parametrize(
    ("variables", "cache"),
    [
        ({}, "data/cache"),
        ({"EVASCORE_DATA_DIR": "/disk"}, "/disk/cache"),
        ({"EVASCORE_DATA_DIR": "/disk", "EVASCORE_CACHE_DIR": "/cache"}, "/cache"),
    ],
    ids=["default", "data folder", "cache"],
)
def test_cache_lies_in_the_data_folder_unless_it_is_named(variables, cache):
    assert load_settings(variables).model_cache == Path(cache)


def test_settings_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        load_settings({}).port = 1


def test_every_setting_is_documented_as_it_is():
    documented = re.findall(r"^\| `EVASCORE_.*$", DOCUMENT.read_text(), flags=re.MULTILINE)
    assert documented == [row(name, field) for name, field in Settings.model_fields.items()]


def test_every_nesting_is_documented():
    document = DOCUMENT.read_text()
    for smaller, larger in NESTED:
        assert f"- `{environment_name(smaller)}` <= `{environment_name(larger)}`" in document


KINDS = {Path: "path", SecretStr: "URL, secret", str: "text"}


def row(name: str, field: FieldInfo) -> str:
    """The row of a setting in the document: name, type with unit and range, default, use."""
    cells = [
        f"`{environment_name(name)}`",
        kind(name, field.annotation),
        default(field.default),
        str(field.description),
    ]
    return f"| {' | '.join(cells)} |"


def kind(name: str, annotation: object) -> str:
    """What a value is, in words."""
    if typing.get_origin(annotation) is typing.Literal:
        return ", ".join(f"`{choice}`" for choice in typing.get_args(annotation))
    if isinstance(annotation, types.UnionType):
        (annotation,) = (part for part in typing.get_args(annotation) if part is not type(None))
    accepted = accepted_values(name, Settings.model_fields[name])
    return KINDS.get(annotation) or accepted.removeprefix("an ").removeprefix("a ")


def default(value: object) -> str:
    """A default as one would write it into the environment."""
    if value is None:
        return "none"
    text = str(value).removeprefix(f"{REPOSITORY}/")
    return f"`{text}`"


def test_variable_of_the_client_is_not_taken_for_a_setting():
    assert load_settings({"EVASCORE_URL": "http://localhost:1"}).port == 8000


def test_every_former_name_is_documented():
    document = DOCUMENT.read_text()
    for old, new in RENAMED.items():
        assert f"- `{environment_name(old)}` is now `{environment_name(new)}`\n" in document
    for old, source in DERIVED.items():
        assert (
            f"- `{environment_name(old)}` follows from `{environment_name(source)}`\n" in document
        )


def test_each_worker_gets_one_of_the_devices():
    assert load_settings({}).worker_devices == ("auto",)
    assert load_settings({"EVASCORE_DEVICE": "cuda:1"}).worker_devices == ("cuda:1",)
    listed = load_settings({"EVASCORE_DEVICES": "cuda:1, cuda:10,cpu,cpu"})
    assert listed.worker_devices == ("cuda:1", "cuda:10", "cpu", "cpu")


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("EvaByte/EvaByte", "EvaByte/EvaByte"),
        ("/models/EvaByte", "EvaByte"),
        ("./EvaByte-SFT_1.0", "EvaByte-SFT_1.0"),
        ("a/b/c", "c"),
    ],
)
def test_a_model_is_named_after_its_folder_or_as_on_the_hub(model, name):
    assert load_settings({"EVASCORE_MODEL": model}).served_name == name


def test_the_folder_of_a_model_gives_its_name_wherever_it_is_read_from(tmp_path, monkeypatch):
    (tmp_path / "owner" / "name").mkdir(parents=True)
    (tmp_path / "current").symlink_to("owner/name")
    monkeypatch.chdir(tmp_path)
    # This is a folder here, and could be a name on the Hub elsewhere.
    for model in ("owner/name", "current", str(tmp_path / "current")):
        assert load_settings({"EVASCORE_MODEL": model}).served_name == "name"


def test_the_demo_is_named_demo():
    assert load_settings({}).served_name == "demo"


def test_a_name_that_is_set_goes_before_that_of_the_folder():
    variables = {"EVASCORE_MODEL": "/models/two words", "EVASCORE_MODEL_NAME": "mine/v2"}
    assert load_settings(variables).served_name == "mine/v2"


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"EVASCORE_MODEL": "/models/two words"}, "EVASCORE_MODEL gives"),
        ({"EVASCORE_MODEL": "/"}, "EVASCORE_MODEL gives"),
        ({"EVASCORE_MODEL_NAME": "a@b"}, "EVASCORE_MODEL_NAME gives"),
        ({"EVASCORE_MODEL_NAME": "a/b/c"}, "EVASCORE_MODEL_NAME gives"),
        ({"EVASCORE_MODEL_NAME": "x" * 97}, "EVASCORE_MODEL_NAME gives"),
    ],
    ids=str,
)
def test_a_name_that_requests_could_not_give_is_refused_with_the_remedy(variables, named):
    line = refusal(**variables)
    assert line.startswith(named)
    assert "set EVASCORE_MODEL_NAME to 1 to 96 letters" in line
