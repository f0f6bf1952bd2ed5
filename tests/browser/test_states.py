"""What the pages say while they wait, and when a part of the service is away, full or refuses."""

import re

import pytest
from playwright.sync_api import expect

from contract.errors import ScoringFailed
from tests.conftest import wait_until
from tests.web import Outcomes


@pytest.fixture
def lonely(open_page, web):
    """The page of a service without a worker."""
    return open_page(web.url)


@pytest.fixture
def still(lonely):
    """That page with its clock stopped: it tries again only when it is told to."""
    lonely.clock.install(time=0)
    lonely.clock.pause_at(1000)
    return lonely


def submit(page, text: str) -> str:
    """Score `text`; the path of the job once it is accepted."""
    page.get_by_role("textbox", name="Text").fill(text)
    with page.expect_response(lambda answer: answer.request.method == "POST") as answered:
        page.get_by_role("button", name="Score", exact=True).click()
    return answered.value.headers.get("location", "")


def test_text_over_the_limit_is_counted_and_refused_by_the_service(page):
    # Long texts are sent in windows, which need the model's size.
    expect(page.locator("#model")).to_be_visible()
    submit(page, "é" * 524_289)
    expect(page.locator("#size-a")).to_have_text("1,048,578 of 1,048,576 bytes")
    expect(page.locator("#size-a")).to_have_class(re.compile("bad"))
    problem = page.get_by_role("alert")
    expect(problem).to_contain_text("has 1048578 bytes; the limit is 1048576")
    expect(problem).to_contain_text("Code text_too_large, request ")
    expect(page.get_by_role("textbox", name="Text")).to_be_focused()
    page.get_by_role("textbox", name="Text").fill("short")
    expect(problem).to_be_hidden()


def test_empty_text_is_refused_in_words(page):
    submit(page, "")
    expect(page.get_by_role("alert")).to_contain_text("Code empty_text")


def test_without_a_worker_the_text_waits_and_the_page_says_why(lonely):
    expect(lonely.locator("#model")).to_contain_text("No worker is ready yet")
    submit(lonely, "patience")
    expect(lonely.get_by_role("status")).to_contain_text("Waiting for its turn")
    expect(lonely.get_by_role("status")).to_contain_text("No worker is running")


def test_cancel_erases_the_job_and_says_so(lonely, web):
    path = submit(lonely, "regretted")
    lonely.get_by_role("button", name="Cancel").click()
    expect(lonely.get_by_role("status")).to_have_text(
        "Cancelled. The service does not keep the text."
    )
    expect(lonely.get_by_role("button", name="Cancel")).to_be_hidden()
    with web.client() as client:
        assert client.get(path).status_code == 410


def test_cancel_erases_a_job_whose_answer_was_lost(still, web):
    accepted = []

    def lose(route):
        if not accepted:
            accepted.append(route.fetch().headers["location"])
            route.abort()
        else:
            route.continue_()

    still.route("**/score", lose)
    still.get_by_role("textbox", name="Text").fill("half known")
    still.get_by_role("button", name="Score", exact=True).click()
    expect(still.get_by_role("status")).to_contain_text("The service does not answer")
    still.get_by_role("button", name="Cancel").click()
    expect(still.get_by_role("status")).to_contain_text("The service does not keep the text.")
    with web.client() as client:
        assert client.get(accepted[0]).status_code == 410


@pytest.fixture
def stalled(lonely):
    """That page while the answer to its long poll comes in; `stall` is what comes of it."""
    lonely.evaluate(
        """() => {
          const ask = window.fetch;
          window.fetch = (path, options) => {
            if (!String(path).includes("?wait=")) return ask(path, options);
            window.fetch = ask;
            return new Response(new ReadableStream({
              start(stream) {
                window.stall = stream;
                options.signal.addEventListener("abort", () => stream.error(options.signal.reason));
              },
            }));
          };
        }"""
    )
    submit(lonely, "half an answer")
    lonely.wait_for_function("() => window.stall")
    return lonely


def test_cancel_while_the_answer_comes_in_is_no_error(stalled):
    stalled.get_by_role("button", name="Cancel").click()
    expect(stalled.get_by_role("status")).to_contain_text("Cancelled")
    expect(stalled.get_by_role("alert")).to_be_hidden()


def test_answer_that_breaks_off_is_asked_for_again(stalled):
    stalled.evaluate("() => window.stall.error(new TypeError('network error'))")
    expect(stalled.get_by_role("status")).to_contain_text("The service does not answer")
    expect(stalled.get_by_role("status")).to_contain_text("Waiting for its turn")


def test_leaving_the_page_erases_the_job(lonely, web):
    path = submit(lonely, "abandoned")
    # The page can erase only a job whose answer it has read.
    expect(lonely.get_by_role("status")).to_contain_text("Waiting for its turn")
    lonely.goto("about:blank")
    with web.client() as client:
        wait_until(lambda: client.get(path).status_code == 410)


def test_leaving_the_page_does_not_send_the_text_again(still, context):
    sent = []
    context.on("request", lambda each: sent.append(each.url) if each.method == "POST" else None)
    still.route("**/score", lambda route: route.abort())
    still.get_by_role("textbox", name="Text").fill("never mind")
    still.get_by_role("button", name="Score", exact=True).click()
    expect(still.get_by_role("status")).to_contain_text("The service does not answer")
    # As the browser says it; the page stays here, so that nothing it sends is lost.
    still.evaluate("() => { dispatchEvent(new PageTransitionEvent('pagehide')); }")
    expect(still.get_by_role("status")).to_contain_text("The page could not erase the text.")
    assert len(sent) == 1


def test_full_queue_is_counted_down_and_tried_again(lonely, web):
    lonely.clock.install()
    with web.client() as client:
        blocking = client.post("/score", json={"text": "x"}).json()["links"]["self"]
        submit(lonely, "second")
        status = lonely.get_by_role("status")
        expect(status).to_contain_text("The queue is full")
        expect(status).to_contain_text(re.compile(r"Trying again in [1-5] s"))
        client.delete(blocking)
    lonely.clock.fast_forward("00:10")
    expect(status).to_contain_text("Waiting for its turn")


def test_button_that_tries_again_keeps_the_focus_while_it_counts(still, web):
    again = still.get_by_role("button", name="Try now")
    left = still.locator("#seconds-left")
    with web.client() as client:
        blocking = client.post("/score", json={"text": "x"}).json()["links"]["self"]
        submit(still, "second")
        again.focus()
        for _ in range(2):
            said = left.text_content()
            still.clock.run_for(1000)
            expect(left).not_to_have_text(said)
            expect(again).to_be_focused()
        client.delete(blocking)
    still.keyboard.press("Enter")
    expect(still.get_by_role("status")).to_contain_text("Waiting for its turn")


def test_failed_job_is_reported_with_its_code(lonely, web):
    path = submit(lonely, "unlucky")
    outcomes = Outcomes(web)
    outcomes.fail(path.rpartition("/")[2], ScoringFailed("The model failed on this text."))
    outcomes.client.close()
    expect(lonely.get_by_role("alert")).to_contain_text("Code scoring_failed")
    lonely.get_by_role("button", name="Score", exact=True).click()
    expect(lonely.get_by_role("status")).to_contain_text("Waiting for its turn")
    expect(lonely.get_by_role("alert")).to_be_hidden()


def test_redis_that_goes_and_comes_back_delays_no_more_than_that(lonely, web, web_redis):
    status = lonely.get_by_role("status")
    web_redis.kill()
    lonely.get_by_role("textbox", name="Text").fill("steadfast")
    lonely.get_by_role("button", name="Score", exact=True).click()
    expect(status).to_contain_text("Broker unavailable")
    web_redis.start()
    expect(status).to_contain_text("Waiting for its turn")
    expect(lonely.get_by_role("alert")).to_be_hidden()


def test_service_that_is_gone_is_distinguished_from_one_that_refuses(still, web):
    path = submit(still, "nobody listens")
    expect(still.get_by_role("status")).to_contain_text("Waiting for its turn")
    web.stop()
    still.get_by_role("button", name="Cancel").click()
    expect(still.get_by_role("status")).to_contain_text("The page could not erase the text.")
    still.get_by_role("textbox", name="Text").fill("anyone?")
    still.get_by_role("button", name="Score", exact=True).click()
    expect(still.get_by_role("status")).to_contain_text("The service does not answer")
    web.start()
    with web.client() as client:
        client.delete(path)
    still.get_by_role("button", name="Try now").click()
    expect(still.get_by_role("status")).to_contain_text("Waiting for its turn")


def test_status_follows_the_queue_and_survives_redis(open_page, web, web_redis):
    page = open_page(f"{web.url}/status")
    expect(page.locator("#no-workers")).to_be_visible()
    expect(page.locator("#live")).to_contain_text("Live.")
    # Without a chart, no sentence speaks of one.
    expect(page.get_by_text("Below:").filter(visible=True)).to_have_count(0)
    with web.client() as client:
        client.post("/score", json={"text": "x" * 1234})
    expect(page.locator("[data-field='queue.bytes']")).to_have_text("1,234")
    expect(page.locator("#chart-queue svg")).to_have_attribute("aria-label", re.compile("1,234"))
    expect(page.locator("#chart-queue")).to_contain_text("most 1,234 bytes")
    expect(page.get_by_text("Below: since this page was opened.").first).to_be_visible()
    web_redis.kill()
    expect(page.get_by_role("alert")).to_contain_text("Broker unavailable")
    web_redis.start()
    expect(page.get_by_role("alert")).to_be_hidden()


def test_status_has_a_verdict_in_one_line(open_page, service, web):
    line = open_page(f"{service.url}/status").locator("#verdict")
    expect(line).to_contain_text("1 worker is ready")
    lonely = open_page(f"{web.url}/status").locator("#verdict")
    expect(lonely).to_contain_text("No worker is running")
    colours = [x.evaluate("node => getComputedStyle(node).color") for x in (line, lonely)]
    assert len(set(colours)) == 2


def test_result_that_the_page_cannot_draw_is_reported(context, service):
    # Not by `open_page`, to which an error of a script is a failure.
    page = context.new_page()
    page.goto(service.url)
    page.evaluate("() => { document.createElementNS = () => { throw new RangeError('full'); }; }")
    submit(page, "invisible")
    expect(page.get_by_role("alert")).to_contain_text("The page could not show the result")
    expect(page.get_by_role("status")).to_have_text("")


def test_jobs_and_batches_are_looked_up_by_their_id(open_page, service):
    with service.client() as client:
        job = client.post("/score?wait=30", json={"text": "find me"}).json()["id"]
        lines = b'{"text": "one"}\n{"text": "two"}\n'
        headers = {"Content-Type": "application/x-ndjson"}
        batch = client.post("/batches", content=lines, headers=headers).json()["id"]
    page = open_page(f"{service.url}/status")
    found = page.locator("#found")
    for name, words in (
        (job, "SUCCESS"),
        (batch, "of 2"),
        ("nobody", "No job or batch has this ID"),
    ):
        page.get_by_label("ID").fill(name)
        page.get_by_role("button", name="Look up").click()
        expect(found).to_contain_text(words)


def test_charts_show_every_worker(open_page, web):
    outcomes = Outcomes(web)
    for name, num_texts, latency_ms in (("slow", 9, 8000.0), ("fast", 3, 10.0)):
        batches = [[num_texts, 100, 10.0]] * 40
        latencies = [latency_ms] * 100
        status = {"name": name, "recent_batches": batches, "recent_latencies_ms": latencies}
        outcomes.pose_as_worker(status)
    outcomes.client.close()
    page = open_page(f"{web.url}/status")
    for chart, most, num_bars in (("latency", "8,000 ms", 100), ("batches", "9 texts", 40)):
        place = page.locator(f"#chart-{chart}")
        expect(place).to_contain_text(f"most {most}2 workers side by side")
        expect(place.locator("rect")).to_have_count(num_bars)
        heights = place.locator("rect").evaluate_all(
            "all => all.map((bar) => bar.height.baseVal.value)"
        )
        assert len(set(heights[: num_bars // 2])) == len(set(heights[num_bars // 2 :])) == 1
        assert len(set(heights)) == 2


def test_status_tells_what_the_worker_did(open_page, service):
    with service.client() as client:
        client.post("/score?wait=30", json={"items": [{"text": "a"}, {"text": "bc"}]})
    page = open_page(f"{service.url}/status")
    expect(page.locator("#chart-batches rect").first).to_be_visible()
    expect(page.locator("#chart-latency rect").first).to_be_visible()
    expect(page.locator("#workers tr")).to_contain_text("ready")
    expect(page.locator("[data-field='recent.latency_p50_ms']")).not_to_have_text("–")


def test_status_rests_while_it_is_paused_or_hidden(open_page, service):
    page = open_page(f"{service.url}/status")
    page.clock.install()
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.get_by_role("button", name="Pause").click()
    page.clock.run_for(10_000)
    assert asked == []
    with page.expect_request("**/stats"):
        page.get_by_role("button", name="Pause").click()
    expect(page.locator("#live")).to_contain_text("Live.")
