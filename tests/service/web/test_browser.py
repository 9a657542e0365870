"""The page in a headless browser: a stranger's hand on all that it has."""

import io

import numpy as np
import pytest

from tests import headless

if headless.chromium() is None:
    pytest.skip(f"no browser, {headless.ACCEPTED}", allow_module_level=True)
playwright = pytest.importorskip("playwright.sync_api", exc_type=ImportError)
expect = playwright.expect
expect.set_options(timeout=30_000)  # of a slow machine; nothing waits as long


@pytest.fixture(scope="module")
def browser():
    with headless.browser() as launched:
        yield launched


@pytest.fixture
def page(browser, client):
    """The page; at the end there was no other host and no error."""
    url = client.url
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    hosts, problems = set(), []
    errors = lambda said: problems.append(said.text) if said.type == "error" else None
    page.on("request", lambda request: hosts.add(request.url.split("/")[2]))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", errors)
    page.goto(url)
    yield page
    assert hosts == {url.split("/")[2]}
    assert not problems
    page.close()


def worker(page, number):
    """Returns the row of a worker on the page."""
    return page.locator(".worker").nth(number)


def state(page, number):
    return worker(page, number).locator(".state")


def test_a_digit_is_drawn_and_answered_also_without_a_worker(page):
    expect(page.locator("#prompt")).to_have_text("Draw a digit")
    expect(page.get_by_role("button", name="Ask", exact=True)).to_be_disabled()
    with page.expect_response("**/predict") as answered:
        headless.draw(page, [(0.5, 0.2), (0.5, 0.8)])
    response = answered.value
    answer = response.json()
    sent = np.lib.format.read_array(io.BytesIO(response.request.post_data_buffer))
    assert sent.shape == (1, 28, 28, 1) and sent.dtype == np.uint8
    rows, columns = np.nonzero(sent[0, ..., 0])[:2]
    assert (rows.min(), rows.max()) == (4, 23)  # the box of MNIST
    assert columns.min() + columns.max() == 27  # its centre of mass in the middle

    expect(page.locator("#class")).to_have_text(str(answer["classes"][0]))
    sure = f"{100 * answer['confidence'][0]:.1f} % sure"
    expect(page.locator("#confidence")).to_have_text(sure)
    expect(page.locator("#bars li")).to_have_count(10)
    expect(page.locator("#bars .best")).to_contain_text(str(answer["classes"][0]))
    expect(page.locator(".worker")).to_have_count(3)
    expect(worker(page, 0)).to_contain_text("rows 0–19 of 28")
    expect(worker(page, 2)).to_contain_text("parity")
    shape = "canvas => [canvas.height, canvas.width]"
    for number in range(3):
        expect(state(page, number)).to_contain_text("up")
        assert worker(page, number).locator("canvas").evaluate(shape) == [20, 28]

    with page.expect_response("**/predict"):  # it is asked about anew
        page.get_by_role("button", name="Kill worker 0").click()
    expect(state(page, 0)).to_have_text("✕ down")
    expect(worker(page, 0)).to_contain_text("lost, its worker is down: decoded")
    told = "Piece 0 was decoded from the results of workers 1 and 2."
    expect(page.locator("#decoded")).to_have_text(told)
    page.get_by_role("button", name="Heal worker 0").click()
    expect(state(page, 0)).to_have_text("● up")
