"""Lists of host names and origins in the settings: what is refused, and what a browser sends."""

import re

import pytest

from app.server.origins import CORS_ANSWER_HEADERS, CORS_REQUEST_HEADERS
from contract.settings import REPOSITORY, SettingsInvalid, load_settings


@pytest.mark.parametrize(
    "listed",
    ["", " , ", "https://a.example", "a.example:80", "*", "*.", "a.*.example", "a/b", "[::1]", "ä"],
)
def test_list_of_hosts_takes_names_only(listed):
    with pytest.raises(SettingsInvalid, match=r"^EVASCORE_ALLOWED_HOSTS: must"):
        load_settings({"EVASCORE_ALLOWED_HOSTS": listed})


@pytest.mark.parametrize(
    "listed",
    [
        "",
        "*",
        "null",
        "app.example.org",
        "https://a.example/",
        "https://*.a.example",
        "ftp://a",
        "https://u@a",
    ],
)
def test_list_of_origins_takes_whole_origins_only(listed):
    with pytest.raises(SettingsInvalid, match=r"^EVASCORE_CORS_ORIGINS: must"):
        load_settings({"EVASCORE_CORS_ORIGINS": listed})


def test_lists_are_split_at_commas_and_spaces_and_written_as_browsers_do():
    settings = load_settings(
        {
            "EVASCORE_ALLOWED_HOSTS": "web Scores.Example.org,, *.example.net.",
            "EVASCORE_CORS_ORIGINS": "HTTPS://App.example.org:443 http://[::1]:3000,http://a:80",
        }
    )
    assert settings.allowed_host_names == ("web", "scores.example.org", "*.example.net")
    assert settings.allowed_origins == {
        "https://app.example.org",
        "http://[::1]:3000",
        "http://a",
    }


def test_pages_of_configured_origins_may_use_every_header_of_the_api():
    source = "".join(path.read_text() for path in (REPOSITORY / "app").rglob("*.py"))
    read = set(re.findall(r'request\.headers\.get\(\s*"([\w-]+)"', source))
    # Browsers and proxies set these by themselves.
    assert read - {"Origin", "Sec-Fetch-Site", "X-Forwarded-For"} <= set(CORS_REQUEST_HEADERS)
    given = set(re.findall(r'headers\["([\w-]+)"\] = ', source))
    readable_anyway = {"Vary", "Content-Encoding", "X-Content-Type-Options", "Allow"}
    readable_anyway |= {"Content-Security-Policy"}
    cors = {name for name in given if name.startswith("Access-Control-")}
    assert given - readable_anyway - cors <= set(CORS_ANSWER_HEADERS)
    assert "Retry-After" in given
