"""The system's Chromium, driven by Playwright, and the services that its pages come from.

Playwright's own browsers are not used: they would be downloaded from elsewhere.
"""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from contract.store.connection.broker import connect
from tests.conftest import RedisServer
from tests.service import Service
from tests.web import WebServer

FOLDER = Path(__file__).parent
NAMES = ("chromium", "chromium-browser", "google-chrome")
# As root, as in most containers, Chromium's own sandbox does not start.
ARGUMENTS = ["--no-sandbox", "--disable-gpu"]
# Of a machine that does much else.
PATIENCE_MS = 60_000

Open = Callable[..., Page]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder, and put them last.

    Until Playwright's driver is closed it keeps an event loop running in the thread of the tests,
    in which nothing else could start one.
    """
    for item in items:
        if FOLDER in item.path.parents:
            item.add_marker("browser")
    items.sort(key=lambda item: FOLDER in item.path.parents)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The browser that all tests share; each test has a profile of its own."""
    executable = next(filter(None, map(shutil.which, NAMES)), None)
    if executable is None:
        pytest.skip("no Chromium on PATH: apt-get install chromium")
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def service(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Everything that `make run` starts, with random weights."""
    service = Service(tmp_path_factory.mktemp("browser"))
    yield service.start(timeout_s=180)
    assert service.stop() == 0


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A fresh profile: no storage, no cache."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(PATIENCE_MS)
    yield context
    context.close()


@pytest.fixture
def open_page(context: BrowserContext) -> Iterator[Open]:
    """Opens a page of which no script may fail and no request be refused by its policy."""
    errors: list[str] = []

    def open_page(url: str) -> Page:
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on(
            "console",
            lambda line: errors.append(line.text) if "Content Security" in line.text else None,
        )
        page.goto(url)
        return page

    yield open_page
    assert errors == []


@pytest.fixture
def page(open_page: Open, service: Service) -> Page:
    """The page at `/` of the full service."""
    return open_page(service.url)


@pytest.fixture(scope="session")
def web_redis(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """The Redis of the web server without a worker; a test that kills it starts it again."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def web_server(
    web_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[WebServer]:
    """A web server without a worker; the queue has room for one job."""
    folder = tmp_path_factory.mktemp("web")
    server = WebServer(folder, web_redis.url, max_queued_jobs=1).start()
    yield server
    assert server.stop() == 0


@pytest.fixture
def web(web_server: WebServer) -> WebServer:
    """The web server without a worker, and nothing in its queue."""
    with connect(web_server.settings) as client:
        client.flushdb()
    return web_server


def score(page: Page, text: str) -> None:
    """Score `text` on the page and wait until it is shown."""
    page.get_by_role("textbox", name="Text", exact=True).fill(text)
    page.get_by_role("button", name="Score", exact=True).click()
    page.get_by_role("heading", name="Scores").wait_for()
