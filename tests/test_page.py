"""The page in a real browser: typing, dropping, playing, keyboard only, narrow and dark."""

import re
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn
from media_fixtures import ffmpeg, write_steps
from model_fixtures import Tool
from playwright.sync_api import Browser, Page, expect, sync_playwright
from repository import ROOT
from sound_fixtures import index_sounds
from store_fixtures import vectors, video

from trimodal.search.server import build_app
from trimodal.search.store import MomentStore
from trimodal.search.tables import About

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PARTS = re.compile(r"image -?\d\.\d\d, audio -?\d\.\d\d")
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no chromium on this machine")


@contextmanager
def served(tool: Tool, store: Path, token: str = "") -> Iterator[str]:
    """The address of a server, which ends with the block."""
    app = build_app(tool.model, MomentStore.open(str(store)), token)
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        deadline = time.monotonic() + 30
        while not server.started and time.monotonic() < deadline:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def folder(tool: Tool, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    write_steps(folder / "steps.mp4", seconds=10)
    write_steps(folder / "silent.mp4", seconds=4, with_audio=False)
    (folder / "broken.mp4").write_bytes(b"rubbish")
    tool.model.index(folder, folder / "store", workers=1)
    return folder


@pytest.fixture(scope="module")
def address(tool: Tool, folder: Path) -> Iterator[str]:
    with served(tool, folder / "store") as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """The page; a console message or a request to another host fails the test."""
    messages: list[str] = []
    urls: list[str] = []
    page = browser.new_page()
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on("request", lambda request: urls.append(request.url))
    page.goto(address)
    yield page
    page.close()
    assert [url for url in urls if not url.startswith((address, "blob:"))] == []
    assert [text for text in messages if "422" not in text and "404" not in text] == []


def test_a_sentence_is_typed_and_a_moment_played_by_keyboard_only(page: Page) -> None:
    expect(page.locator("#about")).to_contain_text("14 moments of 2 videos")
    page.keyboard.type("a dog and a zebra")
    page.keyboard.press("Enter")
    expect(page.locator("#results li")).to_have_count(2)
    expect(page.locator("#message")).to_contain_text("words without a vector: zebra")
    shown = page.locator("#results").get_by_role("button", name="Play steps.mp4 at").first
    label = shown.get_attribute("aria-label") or ""
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.getAttribute('aria-label')") == label:
            break
    page.keyboard.press("Enter")
    expect(page.locator("#player")).to_be_visible()
    minute, second = label.split(" at ")[1].split(",")[0].split(":")
    expected = int(minute) * 60 + int(second) + 0.5
    deadline = time.monotonic() + 20  # the page's policy keeps Playwright from waiting in it
    while not (at := page.evaluate("video.readyState > 2 ? video.currentTime : 0")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert expected - 0.05 <= at < expected + 3
    assert page.evaluate("video.error") is None
    page.keyboard.press("Escape")
    expect(page.locator("#player")).to_be_hidden()
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == label


def test_thumbnail_and_mel_are_drawn(page: Page) -> None:
    page.get_by_role("searchbox").fill("a red dog")
    page.get_by_role("button", name="Search").click()
    result = page.locator("li", has_text="steps.mp4")
    for image in (".thumbnail", ".mel"):
        expect(result.locator(image)).to_have_js_property("complete", True)
        assert result.locator(image).evaluate("(image) => image.naturalWidth") > 10
    expect(page.locator("li", has_text="silent.mp4")).to_contain_text("no audio")


def test_where_it_sounds_is_laid_over_the_thumbnail_and_removed(page: Page) -> None:
    page.get_by_role("searchbox").fill("a red dog")
    page.get_by_role("button", name="Search").click()
    result = page.locator("li", has_text="steps.mp4")
    button = result.get_by_role("button", name="Where does it sound?")
    button.click()
    expect(result.locator(".heat")).to_be_visible()
    expect(result.locator(".heat")).to_have_js_property("complete", True)
    assert result.locator(".heat").evaluate("(image) => image.naturalWidth") > 10
    assert result.locator(".heat").bounding_box() == result.locator(".thumbnail").bounding_box()
    expect(button).to_have_attribute("aria-pressed", "true")
    button.press("Enter")
    expect(result.locator(".heat")).to_be_hidden()
    silent = page.locator("li", has_text="silent.mp4")
    expect(silent).to_be_visible()
    expect(silent.get_by_role("button", name="Where does it sound?")).to_be_hidden()


def test_the_audio_weight_changes_the_scores(page: Page) -> None:
    page.get_by_role("searchbox").fill("a red dog")
    page.keyboard.press("Enter")
    score = page.locator("li", has_text="steps.mp4").locator(".moment")
    expect(score).to_be_visible()
    before = score.get_attribute("aria-label")
    slider = page.get_by_role("slider")
    slider.focus()
    for _ in range(16):
        page.keyboard.press("ArrowRight")
    expect(page.locator("output")).to_have_text("1.00")
    expect(score).not_to_have_attribute("aria-label", before or "")
    page.wait_for_url("**w=1")  # the last of sixteen queries
    page.get_by_role("button", name="Weight by query").click()
    expect(page.locator("output")).to_have_text("0.20")
    expect(score).to_have_attribute("aria-label", before or "")
    expect(page.get_by_role("button", name="Weight by query")).to_be_hidden()
    assert "w=" not in page.url


def test_image_and_audio_are_shown_to_add_up(page: Page) -> None:
    page.get_by_role("searchbox").fill("a red dog")
    page.keyboard.press("Enter")
    result = page.locator("li", has_text="steps.mp4")
    expect(result.locator(".parts")).to_have_text(PARTS)
    score, image, audio = (
        float(number) for text in (".score", ".parts")
        for number in re.findall(r"-?\d\.\d\d", result.locator(text).inner_text())
    )  # fmt: skip
    assert score == pytest.approx(image + audio, abs=0.016)  # each is rounded
    expect(page.locator("li", has_text="silent.mp4").locator(".parts")).to_have_text(
        re.compile(r"image -?\d\.\d\d, no audio")
    )
    expect(result.locator(".others button").first).to_have_attribute("title", PARTS)


def test_a_dropped_sound_finds_its_own_clip(tool: Tool, browser: Browser, tmp_path: Path) -> None:
    sounds = index_sounds(tool, tmp_path)
    with served(tool, sounds.store) as address:
        page = browser.new_page()
        page.goto(address)
        for cut in sounds.cuts:
            drop(page, cut, "audio/wav")
            own = page.locator("#results li", has_text=cut.with_suffix(".mp4").name)
            expect(page.locator("#results li .path").first).to_contain_text(
                cut.with_suffix(".mp4").name
            )
            expect(own.locator(".parts")).to_contain_text("image 0.00, audio 1.00")
        expect(page.locator("output")).to_have_text("1.00")
        page.get_by_role("searchbox").fill("a dog")
        page.keyboard.press("Enter")
        expect(page.locator("output")).to_have_text("0.60")
        page.get_by_role("button", name="Remove").click()
        expect(page.locator("#drop-text")).to_contain_text("Drop an audio")
        expect(page.locator("output")).to_have_text("0.20")
        page.close()


def test_an_audio_file_is_dropped_and_removed(page: Page, folder: Path) -> None:
    drop(page, folder / "steps.mp4", "video/mp4")
    expect(page.locator("#drop-text")).to_have_text("Query with the audio file steps.mp4")
    expect(page.locator("#results li")).to_have_count(1)  # the other is silent
    page.get_by_role("button", name="Remove").click()
    expect(page.locator("#drop-text")).to_contain_text("Drop an audio or image file")


def ask(page: Page, text: str) -> None:
    page.get_by_role("searchbox").fill(text)
    page.keyboard.press("Enter")
    expect(page.locator("#results li")).to_have_count(2)


def test_an_example_is_asked_and_left_again(page: Page) -> None:
    examples = page.locator("#examples button")
    expect(examples.first).to_be_visible()
    text = examples.first.inner_text()
    examples.first.click()
    expect(page.locator("#results li")).to_have_count(2)
    expect(page.get_by_role("searchbox")).to_have_value(text)
    expect(examples.first).to_be_hidden()
    page.go_back()
    expect(page.locator("#results li")).to_have_count(0)
    expect(examples.first).to_be_visible()
    expect(page.get_by_role("searchbox")).to_have_value("")


def test_the_back_button_returns_to_the_query_before(page: Page, folder: Path) -> None:
    ask(page, "a dog")
    drop(page, folder / "steps.mp4", "video/mp4")
    expect(page.locator("output")).to_have_text("0.60")
    page.get_by_role("searchbox").fill("a red dog")
    page.keyboard.press("Enter")
    expect(page).to_have_title("a red dog - trimodal")
    page.go_back()
    expect(page.locator("#drop-text")).to_have_text("Query with the audio file steps.mp4")
    expect(page.get_by_role("searchbox")).to_have_value("a dog")
    expect(page.locator("output")).to_have_text("0.60")
    page.go_back()
    expect(page.locator("#drop-text")).to_contain_text("choose one")
    expect(page.locator("output")).to_have_text("0.20")
    page.go_forward()
    expect(page.locator("output")).to_have_text("0.60")
    page.reload()
    expect(page.locator("#message")).to_contain_text("no longer at hand")


def test_the_weight_is_no_step_back(page: Page) -> None:
    ask(page, "a dog")
    for _ in range(3):
        page.get_by_role("slider").press("ArrowRight")
    page.wait_for_url("**w=0.35")
    page.go_back()
    expect(page.locator("#results li")).to_have_count(0)
    assert "q=" not in page.url


def test_results_go_with_the_query(page: Page, folder: Path) -> None:
    ask(page, "a dog")
    page.get_by_role("searchbox").fill("")
    expect(page.locator("#results li")).to_have_count(0)
    expect(page.locator("#message")).to_have_text("")
    expect(page.locator("#start")).to_be_visible()
    drop(page, folder / "steps.mp4", "video/mp4")
    expect(page.locator("#results li")).to_have_count(1)
    page.get_by_role("button", name="Remove").click()
    expect(page.locator("#results li")).to_have_count(0)
    expect(page.locator("#start")).to_be_visible()
    ask(page, "a dog")
    page.get_by_role("link", name="trimodal").click()
    expect(page.locator("#results li")).to_have_count(0)


def test_a_result_is_the_next_query(page: Page) -> None:
    ask(page, "a dog")
    steps = page.get_by_role("button", name="Similar to steps.mp4")
    name = (steps.get_attribute("aria-label") or "").removeprefix("Similar to ")
    steps.click()
    expect(page.locator("#like-text")).to_have_text(f"Similar to {name.replace(' at ', ' · ')}")
    expect(page.locator("#results li .path")).to_have_text(re.compile("silent.mp4"))
    expect(page.locator("#like-image")).to_have_js_property("naturalWidth", 32)
    expect(page.locator("output")).to_have_text("0.50")
    page.reload()
    expect(page.locator("#results li")).to_have_count(1)
    ask(page, "a red dog")
    expect(page.locator("#like")).to_be_hidden()
    page.go_back()
    expect(page.locator("#like")).to_be_visible()
    page.get_by_role("button", name="Remove").click()
    expect(page.locator("#like")).to_be_hidden()
    expect(page.locator("#results li")).to_have_count(0)


def test_the_bar_shows_what_came_from_image_and_audio(page: Page, address: str) -> None:
    ask(page, "a dog")
    hits = page.request.post(f"{address}/api/search?text=a+dog").json()["hits"]
    best = hits[0]["score"]
    for hit, result in zip(hits, page.locator("#results li").all(), strict=True):
        for part in ("image", "audio"):
            bar = result.locator(f".{part}-share")
            expected = 100 * max(0, hit["moments"][0][f"from_{part}"] or 0) / best
            width = bar.evaluate("(bar) => parseFloat(bar.style.width)")
            assert width == pytest.approx(expected, abs=0.1)
        expect(result.locator(".shares")).to_have_attribute("aria-hidden", "true")


def test_problems_are_listed(page: Page) -> None:
    page.get_by_text("1 with problems").click()
    expect(page.locator("#problems li")).to_contain_text("broken.mp4: corrupt")


def test_more_results_follow_and_stay_when_one_comes_back(
    tool: Tool, browser: Browser, tmp_path: Path
) -> None:
    about = About(model=tool.model.fingerprint)
    store = MomentStore.create(str(tmp_path / "store"), about, 256)
    moments = [(number, 1, b"frame", b"") for number in range(30)]
    store.add([video(number, 1) for number in range(30)], moments, vectors(30))
    with served(tool, tmp_path / "store") as address:
        page = browser.new_page(viewport={"width": 600, "height": 400})
        page.goto(f"{address}/?q=a+dog")
        results, more = page.locator("#results li"), page.get_by_role("button", name="More")
        for count in (12, 24):
            expect(results).to_have_count(count)
            expect(page.locator("#message")).to_have_text(f"The first {count} videos, best first.")
            more.click()
        expect(results).to_have_count(30)
        expect(more).to_be_hidden()
        expect(page.locator("#message")).to_have_text("30 videos, best first.")
        paths = page.locator(".path").all_inner_texts()
        assert len(set(paths)) == 30
        assert page.evaluate("document.activeElement.closest('li') === results.children[24]")
        page.locator(".similar").nth(25).click()
        expect(page.locator("#message")).to_have_text("The first 12 videos, best first.")
        page.go_back()
        expect(page.locator("#message")).to_have_text("30 videos, best first.")
        assert page.locator(".path").all_inner_texts() == paths
        assert page.evaluate("scrollY") > 1000
        page.close()


def drop(page: Page, path: Path, kind: str) -> None:
    """What the browser does when a user drops a file onto the page."""
    transfer = page.evaluate_handle(
        """([bytes, name, type]) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(bytes)], name, { type }));
            return transfer;
        }""",
        [list(path.read_bytes()), path.name, kind],
    )
    page.dispatch_event("body", "drop", {"dataTransfer": transfer})


def test_an_image_is_chosen(page: Page, tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (50, 40), (90, 90, 90)).save(tmp_path / "grey.png")
    page.locator("#file").set_input_files(tmp_path / "grey.png")
    expect(page.locator("#drop-text")).to_have_text("Query with the image file grey.png")
    expect(page.locator("#results li")).to_have_count(2)


def test_unusable_queries_are_refused_with_the_reason(page: Page, tmp_path: Path) -> None:
    message = page.locator("#message")
    page.get_by_role("button", name="Search").click()
    expect(message).to_have_text("Type a sentence, or choose an audio or image file.")
    page.get_by_role("searchbox").fill("zebra")
    page.keyboard.press("Enter")
    expect(message).to_contain_text("has no word that the model knows")
    page.get_by_role("searchbox").fill("")
    (tmp_path / "bad.wav").write_bytes(b"rubbish")
    page.locator("#file").set_input_files(tmp_path / "bad.wav")
    expect(message).to_have_text("The audio cannot be used: it cannot be decoded.")
    (tmp_path / "bad.png").write_bytes(b"rubbish")
    page.locator("#file").set_input_files(tmp_path / "bad.png")
    expect(message).to_contain_text("The file is not a readable picture: not a")
    (tmp_path / "large.wav").write_bytes(bytes(20_000_001))
    page.locator("#file").set_input_files(tmp_path / "large.wav")
    expect(message).to_have_text("The file is larger than 20 MB.")


def test_a_video_that_is_gone_is_told(tool: Tool, browser: Browser, tmp_path: Path) -> None:
    video = write_steps(tmp_path / "a.mp4", seconds=3)
    tool.model.index(tmp_path, tmp_path / "store", workers=1)
    with served(tool, tmp_path / "store") as address:
        page = browser.new_page()
        page.goto(f"{address}/?q=a dog")
        video.unlink()
        page.locator(".moment").click()
        expect(page.get_by_role("alert")).to_contain_text("cannot play the file")
        page.close()


def test_the_token_leaves_the_address_and_the_page_works(
    tool: Tool, folder: Path, browser: Browser
) -> None:
    context = browser.new_context()
    page = context.new_page()
    with served(tool, folder / "store", "s3cret") as address:
        page.goto(f"{address}/?q=a+dog")
        expect(page.locator("body")).to_contain_text("trimodal serve")
        page.goto(f"{address}/?token=s3cret&q=a+dog")
        expect(page.locator("#results li")).to_have_count(2)
        assert "token" not in page.url
        page.get_by_role("button", name="Similar to steps.mp4").click()
        expect(page.locator("#like")).to_be_visible()
        page.go_back()
        expect(page.locator("#results li")).to_have_count(2)
        assert "token" not in page.url
        assert page.evaluate("document.cookie") == ""
        thumbnail = page.locator("li", has_text="steps.mp4").locator(".thumbnail")
        expect(thumbnail).to_have_js_property("complete", True)
        assert thumbnail.evaluate("(image) => image.naturalWidth") > 10
        page.goto(f"{address}/?q=a+dog")  # by the cookie
        expect(page.locator("#results li")).to_have_count(2)
    context.close()


def test_a_folder_indexed_anew_shows_its_own_pictures(
    tool: Tool, browser: Browser, tmp_path: Path
) -> None:
    """The same numbers mean other videos."""
    for name, colour in (("first", "red"), ("second", "blue")):
        (tmp_path / name).mkdir()
        ffmpeg("-f", "lavfi", "-i", f"color={colour}:size=48x32:duration=2", "-pix_fmt", "yuv420p",
               tmp_path / name / "a.mp4")  # fmt: skip
    tool.model.index(tmp_path / "first", tmp_path / "store", workers=1)
    page = browser.new_page()
    with served(tool, tmp_path / "store") as address:
        for name, brightest in (("first", 0), ("second", 2)):
            page.goto(f"{address}/?q=a+dog")
            expect(page.locator(".thumbnail")).to_have_js_property("complete", True)
            pixel = page.locator(".thumbnail").evaluate(_FIRST_PIXEL)
            assert pixel.index(max(pixel)) == brightest, name
            tool.model.index(tmp_path / "second", tmp_path / "store", workers=1, rebuild=True)
    page.close()


_FIRST_PIXEL = """(image) => {
    const context = document.createElement("canvas").getContext("2d");
    context.drawImage(image, 0, 0);
    return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3);
}"""


def test_an_empty_index_is_reported(tool: Tool, browser: Browser, tmp_path: Path) -> None:
    about = About(model=tool.model.fingerprint)
    MomentStore.create(str(tmp_path / "store"), about, 256)
    with served(tool, tmp_path / "store") as address:
        page = browser.new_page()
        page.goto(address)
        expect(page.locator("#message")).to_contain_text("Nothing is indexed yet")
        page.get_by_role("searchbox").fill("a dog")
        page.keyboard.press("Enter")
        expect(page.locator("#message")).to_have_text("Nothing is indexed.")
        page.close()


def test_it_fits_a_phone_and_follows_the_dark_mode(browser: Browser, address: str) -> None:
    colours = []
    for scheme in ("light", "dark"):
        context = browser.new_context(viewport={"width": 360, "height": 740}, color_scheme=scheme)
        page = context.new_page()
        page.goto(f"{address}/?q=a+dog&w=0.4")
        expect(page.locator("#results li")).to_have_count(2)
        expect(page.locator("output")).to_have_text("0.40")
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        heights = [
            (card.bounding_box() or {"height": 0})["height"]
            for card in page.locator("#results li").all()
        ]
        assert max(heights) < 210
        colours.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        context.close()
    assert len(set(colours)) == 2


def test_the_committed_report_fits_a_phone(browser: Browser) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.goto((ROOT / "metrics/report/report.html").as_uri())
    expect(page.get_by_role("heading", name="Variable against fixed margin")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.close()
