"""The page in a headless browser: a stranger's hand on all that it has."""

import io
from contextlib import contextmanager

import headless
import numpy as np
import pytest

from tests.web.fakes import PageClient
from tests.web.test_page import TOKEN

if headless.chromium() is None:
    pytest.skip(f"no browser, {headless.ACCEPTED}", allow_module_level=True)
playwright = pytest.importorskip("playwright.sync_api", exc_type=ImportError)
expect = playwright.expect
expect.set_options(timeout=30_000)  # of a slow machine; nothing waits as long
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 360, "height": 740}


@pytest.fixture(scope="module")
def browser():
    with headless.browser() as launched:
        yield launched


@pytest.fixture(autouse=True)
def healed(service, demo):
    """Workers of one test are no concern of the next."""
    yield
    for number in range(3):
        demo.act("heal", number)
    service.engine.pool.wait_until_ready()


@contextmanager
def opened(browser, url, viewport=DESKTOP, expected_errors=0):
    """Opens the page; at the end there was no other host and no error."""
    context = browser.new_context(viewport=viewport)
    page = context.new_page()
    hosts, problems = set(), []
    page.on("request", lambda request: hosts.add(request.url.split("/")[2]))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on(
        "console",
        lambda said: problems.append(said.text) if said.type == "error" else None,
    )
    page.goto(url)
    yield page
    assert hosts == {url.split("/")[2]}
    assert len(problems) == expected_errors, problems
    context.close()


@pytest.fixture
def page(browser, client):
    with opened(browser, client.url) as ready:
        yield ready


def draw_one(page):
    """Draws a stroke from top to bottom, and returns the answer of the service."""
    with page.expect_response("**/predict") as answered:
        headless.draw(page, [(0.5, 0.2), (0.5, 0.8)])
    return answered.value


def worker(page, number):
    """Returns what is shown of a worker."""
    return page.locator(".worker").nth(number)


def press(page, label, number):
    """Presses a button of a worker; where there is an image it is asked about anew."""
    with page.expect_response("**/predict"):
        page.get_by_role("button", name=f"{label} worker {number}").click()


def state(page, number):
    return worker(page, number).locator(".state")


def test_a_digit_is_drawn_and_answered(page, client):
    expect(page.locator("#prompt")).to_have_text("Draw a digit")
    expect(page.get_by_role("button", name="Ask", exact=True)).to_be_disabled()
    response = draw_one(page)
    answer = response.json()
    sent = np.lib.format.read_array(io.BytesIO(response.request.post_data_buffer))
    assert sent.shape == (1, 28, 28, 1) and sent.dtype == np.uint8
    rows, columns = np.nonzero(sent[0, ..., 0])[:2]
    assert (rows.min(), rows.max()) == (4, 23)  # the box of MNIST
    assert columns.min() + columns.max() == 27  # its centre of mass in the middle
    assert 2 <= np.ptp(columns) + 1 <= 5 and sent.max() == 255

    expect(page.locator("#class")).to_have_text(str(answer["classes"][0]))
    sure = f"{100 * answer['confidence'][0]:.1f} % sure"
    expect(page.locator("#confidence")).to_have_text(sure)
    expect(page.locator("#bars li")).to_have_count(10)
    expect(page.locator("#bars .best")).to_contain_text(str(answer["classes"][0]))
    for phase in ("queue", "encode", "wait", "decode"):
        expect(page.locator("#legend")).to_contain_text(f"{phase} ")
    expect(page.locator(".worker")).to_have_count(3)
    expect(worker(page, 0)).to_contain_text("rows 0–19 of 28")
    expect(worker(page, 2)).to_contain_text("parity")
    shape = "canvas => [canvas.height, canvas.width]"
    for number in range(3):
        expect(state(page, number)).to_contain_text("up")
        assert worker(page, number).locator("canvas").evaluate(shape) == [20, 28]
    page.get_by_role("button", name="Clear").click()
    expect(page.locator("#none")).to_be_visible()
    expect(page.get_by_role("button", name="Ask", exact=True)).to_be_disabled()


def test_a_killed_worker_goes_down_and_returns(page):
    draw_one(page)
    press(page, "Kill", 0)
    expect(state(page, 0)).to_have_text("✕ down")
    expect(worker(page, 0)).to_contain_text("lost, its worker is down: decoded")
    expect(worker(page, 0).locator(".piece.lost")).to_have_count(1)
    told = "Piece 0 was decoded from the results of workers 1 and 2."
    expect(page.locator("#decoded")).to_have_text(told)
    for number in (1, 2):
        expect(worker(page, number)).to_contain_text("result used")
    page.get_by_role("button", name="Heal worker 0").click()
    expect(state(page, 0)).to_have_text("● up")
    with page.expect_response("**/predict"):
        page.get_by_role("button", name="Ask", exact=True).click()
    expect(state(page, 0)).to_have_text("● up")


def picture(shape, value):
    """Returns the bytes of a PNG with one square in its middle."""
    from PIL import Image

    pixels = np.full(shape, 255 - value, np.uint8)
    middle = tuple(slice(size // 4, 3 * size // 4) for size in shape[:2])
    pixels[middle] = value
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


@pytest.mark.parametrize("dark", [False, True])
def test_a_file_is_scaled_and_turned_light_on_dark(page, dark):
    expect(page.locator("#prompt")).to_have_text("Draw a digit")
    content = picture((112, 112, 3), 0 if dark else 255)
    file = {"name": "own.png", "mimeType": "image/png", "buffer": content}
    with page.expect_response("**/predict") as answered:
        page.locator("#file").set_input_files(file)
    body = answered.value.request.post_data_buffer
    sent = np.lib.format.read_array(io.BytesIO(body))[0, ..., 0]
    expected = np.zeros((28, 28), np.uint8)
    expected[7:21, 7:21] = 255
    np.testing.assert_array_equal(sent, expected)
    expect(page.locator("#note")).to_contain_text("own.png, scaled to 28 × 28 pixels")
    inverted = page.get_by_text("inverted")
    expect(inverted).to_have_count(int(dark))


@pytest.mark.long
def test_a_token_is_asked_for_and_kept(browser, service):
    with PageClient(service, token=TOKEN) as guarded:
        refused = 1  # the first look, which the console has as an error
        with opened(browser, guarded.url, expected_errors=refused) as page:
            page.get_by_label("Token").fill(TOKEN)
            page.get_by_role("button", name="Use it").click()
            expect(page.get_by_label("Token")).to_be_hidden()
            assert draw_one(page).status == 200
            expect(page.locator("#result")).to_be_visible()
            expect(page.locator(".faults")).to_have_count(0)  # without a demo
            page.reload()
            assert draw_one(page).status == 200
