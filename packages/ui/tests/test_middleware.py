# SPDX-License-Identifier: Apache-2.0
import asyncio
import gzip
import logging
import re
from html.parser import HTMLParser

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import (
    FileResponse,
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles

from tradewind.ui.middleware import FooterMiddleware, insert_footer
from tradewind.ui.runtime_info import Link

LINKS = (Link("Runbook", "https://wiki.example.org/?a=1&b=2"),)
SCRIPT = "/tradewind/static/footer.js?v=abc"
PAGE = "<!doctype html><html><head><title>t</title></head><body><p>Grüezi</p></body></html>"


def with_footer(app, **options):
    return FooterMiddleware(app, **{"product": "Tradewind Runtime", "links": LINKS, "script": SCRIPT, **options})


def client(app, **options):
    return httpx.AsyncClient(transport=httpx.ASGITransport(app, **options), base_url="http://test")


def page(content=PAGE, **kwargs):
    return Starlette(routes=[Route("/", lambda _: HTMLResponse(content, **kwargs))])


async def get(app, method="GET", path="/", **headers):
    async with client(app) as http:
        return await http.request(method, path, headers=headers)


class Elements(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def attributes(self, name):
        (attributes,) = [a for tag, a in self.found if tag == name]
        return attributes


async def test_a_document_gets_the_element_and_a_module_before_the_end_of_its_body():
    answer = await get(with_footer(page()))
    before, end = PAGE.split("</body>")
    assert answer.text.startswith(before)
    assert answer.text.endswith("</body>" + end)
    elements = Elements(answer.text)
    assert elements.attributes("script") == {"type": "module", "async": None, "src": SCRIPT}
    assert elements.attributes("tradewind-footer")["product"] == "Tradewind Runtime"
    assert int(answer.headers["content-length"]) == len(answer.content)


async def test_nothing_inline_is_executed_so_a_strict_content_security_policy_holds():
    answer = await get(with_footer(page()))
    assert re.search(r"<script[^>]*></script>", answer.text)
    assert "<style" not in answer.text
    assert not re.search(r"\son\w+=", answer.text)


async def test_names_and_links_are_escaped():
    nasty = '"></tradewind-footer><script>alert(1)</script>'
    app = with_footer(page(), product=nasty, links=[Link(nasty, "https://a.example/?x='\"<&")])
    elements = Elements((await get(app)).text)
    assert [tag for tag, _ in elements.found].count("script") == 1
    attributes = elements.attributes("tradewind-footer")
    assert attributes["product"] == nasty
    assert "alert(1)" in attributes["links"]


@pytest.mark.parametrize("status", [200, 404, 500])
async def test_every_status_with_a_document_has_the_footer(status):
    answer = await get(with_footer(page(status_code=status)))
    assert answer.status_code == status
    assert "<tradewind-footer" in answer.text


@pytest.mark.parametrize("ending", ["</body>", "</BODY>", "</Body >", "</body\n>"])
def test_the_end_of_the_body_is_found_in_any_spelling(ending):
    document = b"<body>x" + ending.encode() + b"</html>"
    assert insert_footer(document, b"<F>") == b"<body>x<F>" + ending.encode() + b"</html>"


def test_the_last_end_of_a_body_is_the_one():
    document = b"<script>const s = '</body>'</script></body>"
    assert insert_footer(document, b"<F>") == b"<script>const s = '</body>'</script><F></body>"


async def test_a_document_without_an_end_of_body_passes_unchanged():
    app = page("<p>fragment</p>", headers={"etag": '"1"'})
    plain, touched = await get(app), await get(with_footer(app))
    assert (touched.content, touched.headers) == (plain.content, plain.headers)


async def test_the_footer_is_there_once_however_often_the_middleware_is():
    answer = await get(with_footer(with_footer(page())))
    assert answer.text.count("<tradewind-footer") == 1


@pytest.mark.parametrize("root_path", ["", "/", "/team/airflow", "/team/airflow/"])
async def test_the_script_lies_below_the_root_path(root_path):
    async with client(with_footer(HTMLResponse(PAGE)), root_path=root_path) as http:
        source = Elements((await http.get("/")).text).attributes("script")["src"]
    prefix = root_path.rstrip("/")
    assert source == f"{prefix}{SCRIPT}"


async def test_in_a_mounted_application_the_script_still_lies_below_the_outer_root_path():
    app = with_footer(Starlette(routes=[Mount("/auth", app=page())]))
    async with client(app, root_path="/p") as http:
        source = Elements((await http.get("/p/auth/")).text).attributes("script")["src"]
    assert source == f"/p{SCRIPT}"


async def test_a_strange_root_path_cannot_leave_the_attribute_or_the_host():
    async with client(with_footer(page()), root_path='//evil.example/"><script>ü') as http:
        source = Elements((await http.get("/")).text).attributes("script")["src"]
    assert source.startswith('/evil.example/"><script>ü/tradewind')


def responses(tmp_path):
    text = tmp_path / "page.html"
    text.write_text(PAGE, encoding="utf-8")

    async def chunks():
        for part in (PAGE[:30], PAGE[30:]):
            yield part

    return {
        "json": lambda _: JSONResponse({"html": "</body>"}),
        "text": lambda _: PlainTextResponse("</body>"),
        "xhtml": lambda _: Response(PAGE, media_type="application/xhtml+xml"),
        "no-type": lambda _: Response(PAGE),
        "redirect": lambda _: RedirectResponse("/elsewhere"),
        "gzip": lambda _: HTMLResponse(gzip.compress(PAGE.encode()), headers={"content-encoding": "gzip"}),
        "empty": lambda _: HTMLResponse(status_code=204),
        "not-modified": lambda _: HTMLResponse(status_code=304, headers={"etag": '"1"'}),
        "partial": lambda _: HTMLResponse(PAGE, 206, {"content-range": "bytes 0-9/100"}),
        "stream": lambda _: StreamingResponse(chunks(), media_type="text/html"),
        "large": lambda _: HTMLResponse("x" * 2000 + "</body>"),
        "download": lambda _: FileResponse(text, media_type="application/octet-stream"),
        "utf-16": lambda _: Response(PAGE.encode("utf-16"), media_type="text/html; charset=utf-16"),
    }


@pytest.mark.parametrize(
    "name",
    [
        "json", "text", "xhtml", "no-type", "redirect", "gzip", "empty", "not-modified", "partial", "stream",
        "large", "download", "utf-16",
    ],
)  # fmt: skip
async def test_everything_else_passes_message_by_message(name, tmp_path):
    app = Starlette(routes=[Route("/", responses(tmp_path)[name])])
    plain = await messages(app)
    assert await messages(with_footer(app, max_document_bytes=1000)) == plain


async def messages(app, method="GET"):
    sent = []
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "path": "/",
        "raw_path": b"/",
        "root_path": "",
        "scheme": "http",
        "query_string": b"",
        "headers": [],
        "server": ("test", 80),
        "client": ("test", 1),
    }

    async def receive():
        await asyncio.sleep(60)

    async def send(message):
        sent.append(message)

    await app(scope, receive, send)
    for message in sent:
        headers = message.get("headers")
        if headers:
            message["headers"] = [h for h in headers if h[0] != b"last-modified"]
    return sent


async def test_a_stream_is_not_held_back():
    first_part_arrived = asyncio.Event()

    async def chunks():
        yield "<body>first"
        await asyncio.wait_for(first_part_arrived.wait(), 5)
        yield "second</body>"

    app = with_footer(Starlette(routes=[Route("/", lambda _: StreamingResponse(chunks(), media_type="text/html"))]))
    sent = []

    async def receive():
        await asyncio.sleep(60)

    async def send(message):
        sent.append(message)
        if message.get("body") == b"<body>first":
            first_part_arrived.set()

    await app({"type": "http", "method": "GET", "path": "/", "headers": [], "asgi": {}}, receive, send)
    assert [m.get("body") for m in sent[1:]] == [b"<body>first", b"second</body>", b""]


async def test_a_file_in_several_parts_of_a_declared_length_gets_the_footer(tmp_path):
    document = "<body>" + "x" * 300_000 + "</body>"
    (tmp_path / "page.html").write_text(document, encoding="utf-8")
    app = with_footer(Starlette(routes=[Mount("/", StaticFiles(directory=tmp_path))]))
    answer = await get(app, path="/page.html")
    assert "<tradewind-footer" in answer.text
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert not {"etag", "last-modified", "accept-ranges"} & set(answer.headers)


async def test_a_body_that_outgrows_its_declared_length_is_let_go_at_the_bound():
    async def app(scope, receive, send):
        headers = [(b"content-type", b"text/html"), (b"content-length", b"10")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for _ in range(3):
            await send({"type": "http.response.body", "body": b"x" * 600, "more_body": True})
        await send({"type": "http.response.body", "body": b"</body>"})

    sent = await messages(with_footer(app, max_document_bytes=1000))
    assert sent == await messages(app)


async def test_the_answer_to_head_keeps_no_header_that_a_get_would_not_have(tmp_path):
    (tmp_path / "page.html").write_text(PAGE, encoding="utf-8")
    app = with_footer(Starlette(routes=[Mount("/", StaticFiles(directory=tmp_path))]))
    answer = await get(app, "HEAD", "/page.html")
    assert answer.status_code == 200
    assert answer.content == b""
    assert not {"content-length", "etag", "last-modified"} & set(answer.headers)


async def test_the_answer_to_head_is_otherwise_unchanged():
    app = Starlette(routes=[Route("/", lambda _: JSONResponse({}), methods=["GET", "HEAD"])])
    assert await messages(with_footer(app), "HEAD") == await messages(app, "HEAD")


async def test_a_compressing_middleware_around_it_compresses_the_footer_too():
    app = GZipMiddleware(with_footer(page("<body>" + "x" * 2000 + "</body>")), minimum_size=100)
    answer = await get(app, **{"accept-encoding": "gzip"})
    assert answer.headers["content-encoding"] == "gzip"
    assert "<tradewind-footer" in answer.text


async def exchange(app, scope, *incoming):
    queue, sent = list(incoming), []

    async def receive():
        return queue.pop(0)

    async def send(message):
        sent.append(message)

    await app({"asgi": {"version": "3.0"}, **scope}, receive, send)
    return sent


async def test_a_websocket_passes():
    async def echo(websocket):
        await websocket.accept()
        await websocket.send_text(await websocket.receive_text())
        await websocket.close()

    sent = await exchange(
        with_footer(Starlette(routes=[WebSocketRoute("/", echo)])),
        {"type": "websocket", "path": "/", "headers": [], "query_string": b"", "root_path": ""},
        {"type": "websocket.connect"},
        {"type": "websocket.receive", "text": "<body></body>"},
    )
    assert [m["type"] for m in sent] == ["websocket.accept", "websocket.send", "websocket.close"]
    assert sent[1]["text"] == "<body></body>"


async def test_the_applications_lifespan_runs():
    sent = await exchange(
        with_footer(Starlette()),
        {"type": "lifespan"},
        {"type": "lifespan.startup"},
        {"type": "lifespan.shutdown"},
    )
    assert [m["type"] for m in sent] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def test_an_error_in_here_lets_the_response_through_and_is_logged_once(caplog):
    async def app(scope, receive, send):
        headers = [(b"content-type", b"text/html"), (b"content-length", b"many")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"<body></body>"})

    touched = with_footer(app)
    with caplog.at_level(logging.WARNING, logger="tradewind.ui.middleware"):
        assert await messages(touched) == await messages(app)
        await messages(touched)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.exc_info


async def test_an_error_while_the_footer_is_inserted_lets_the_whole_response_through(caplog):
    async def app(scope, receive, send):
        headers = [(b"content-type", b"text/html"), (b"content-length", b"13")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"<body>", "more_body": True})
        await send({"type": "http.response.body", "body": "</body>"})  # text: a broken application

    with caplog.at_level(logging.WARNING, logger="tradewind.ui.middleware"):
        assert await messages(with_footer(app)) == await messages(app)
    assert len(caplog.records) == 1


async def test_an_application_that_stops_in_the_middle_has_still_said_what_it_said():
    async def app(scope, receive, send):
        headers = [(b"content-type", b"text/html"), (b"content-length", b"100")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"<body>", "more_body": True})

    assert await messages(with_footer(app)) == await messages(app)


async def test_an_application_that_fails_after_the_start_can_still_answer_500():
    async def broken(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html")]})
        raise RuntimeError("broken")

    async def app(scope, receive, send):
        try:
            await with_footer(broken)(scope, receive, send)
        except RuntimeError:
            await PlainTextResponse("sorry", 500)(scope, receive, send)

    assert (await get(app)).status_code == 500


async def test_a_body_that_the_server_reads_itself_follows_its_start(tmp_path):
    async def app(scope, receive, send):
        headers = [(b"content-type", b"text/html"), (b"content-length", b"10")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.pathsend", "path": str(tmp_path / "page.html")})

    assert await messages(with_footer(app)) == await messages(app)


@given(st.binary(), st.binary().filter(lambda b: b"<" not in b))
def test_inserting_adds_the_markup_and_loses_no_byte(before, after):
    document = before + b"</body>" + after
    changed = insert_footer(document, b"<tradewind-footer>")
    if b"<tradewind-footer" in before:
        assert changed is document
    else:
        assert changed == before + b"<tradewind-footer></body>" + after


@given(st.binary())
def test_inserting_twice_is_inserting_once(document):
    once = insert_footer(document, b"<tradewind-footer>")
    assert insert_footer(once, b"<tradewind-footer>") == once
