"""The embedded node and web pages of other origins: the node answers none of the requests that Chromium sends for them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from opensearchpy import OpenSearch
    from playwright.sync_api import Browser, Frame, Page

DOCUMENTS = 3

# What answers of other origins a script may see: the type of the response and its status, or that there is none.
ATTACKS = """async ([node, index]) => {
    const source = (body) => `source_content_type=application/json&source=${encodeURIComponent(JSON.stringify(body))}`;
    const all = {query: {match_all: {}}};
    const owned = {script: {source: "ctx._source.caption = 'OWNED'"}, ...all};
    const text = {headers: {'Content-Type': 'text/plain'}, body: JSON.stringify(all)};
    const json = {headers: {'Content-Type': 'application/json'}, body: JSON.stringify({caption: 'OWNED'})};
    const of = (path, init) => fetch(`${node}/${path}`, init);
    const asked = {
        'delete by query': () => of(`${index}/_delete_by_query?refresh&${source(all)}`, {method: 'POST', mode: 'no-cors'}),
        'delete by query, text': () => of(`${index}/_delete_by_query?refresh`, {method: 'POST', mode: 'no-cors', ...text}),
        'update by query': () => of(`${index}/_update_by_query?refresh&${source(owned)}`, {method: 'POST', mode: 'no-cors'}),
        'index a document': () => of(`${index}/_doc?refresh&${source({caption: 'OWNED'})}`, {method: 'POST', mode: 'no-cors'}),
        'replace a document': () => of(`${index}/_doc/0?refresh`, {method: 'PUT', ...json}),
        'delete a document': () => of(`${index}/_doc/0?refresh`, {method: 'DELETE'}),
        'read': () => of(`${index}/_search`, {}),
        'read, no-cors': () => of(`${index}/_search`, {mode: 'no-cors'}),
        'read with a body': () => of(`${index}/_search`, {method: 'POST', ...json}),
        'another index': () => of(`${index}-other`, {method: 'PUT'}),
        'settings': () => of('_cluster/settings', {method: 'PUT', ...json}),
        'beacon': async () => navigator.sendBeacon(`${node}/${index}/_close`),
        'close': () => of(`${index}/_close`, {method: 'POST', mode: 'no-cors'}),
    };
    const seen = {};
    for (const [name, ask] of Object.entries(asked)) {
        seen[name] = await ask().then((answer) => answer.type ? `${answer.type} ${answer.status}` : 'sent', () => 'failed');
    }
    return seen;
}"""
NO_ANSWER = {"opaque 0", "failed", "sent"}

# Forms and elements need no script at all.
ELEMENTS = """([node, index]) => {
    const source = encodeURIComponent('{"query": {"match_all": {}}}');
    const query = `source_content_type=application/json&source=${source}`;
    const loaded = (element, url) => new Promise((done) => {
        element.onload = element.onerror = () => done(element.tagName);
        element[element.tagName === 'LINK' ? 'href' : 'src'] = url;
        document.body.append(element);
    });
    const posted = (path, encoding) => new Promise((done) => {
        const frame = document.createElement('iframe');
        const form = document.createElement('form');
        frame.name = form.target = `f${document.forms.length}`;
        Object.assign(form, {method: 'post', enctype: encoding, action: `${node}/${path}`});
        document.body.append(frame, form);
        frame.onload = () => done('FORM');
        form.submit();
    });
    const link = Object.assign(document.createElement('link'), {rel: 'stylesheet'});
    return Promise.all([
        loaded(new Image(), `${node}/${index}/_close`),
        loaded(new Image(), `${node}/${index}/_delete_by_query?${query}`),
        loaded(document.createElement('script'), `${node}/${index}/_search`),
        loaded(link, `${node}/${index}/_search`),
        loaded(document.createElement('iframe'), `${node}/${index}/_delete_by_query?${query}`),
        posted(`${index}/_delete_by_query?refresh&${query}`, 'text/plain'),
        posted(`${index}/_doc?refresh`, 'application/x-www-form-urlencoded'),
        posted(`${index}/_close`, 'multipart/form-data'),
    ]);
}"""


class BlankHandler(BaseHTTPRequestHandler):
    """Any page of a dev server, a notebook or another user's."""

    def do_GET(self) -> None:
        body = b"<!doctype html><title>elsewhere</title><iframe sandbox='allow-scripts' srcdoc='<p>no origin'></iframe>"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def other_origin() -> Iterator[str]:
    """A site on this machine: for sites of the internet some browsers ask the user first."""
    with ThreadingHTTPServer(("127.0.0.1", 0), BlankHandler) as server:
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        serving.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        serving.join()


@pytest.fixture
def blank_page(browser: Browser) -> Iterator[Page]:
    """A tab in which errors are expected."""
    made = browser.new_page()
    made.set_default_timeout(20_000)
    yield made
    made.close()


@pytest.fixture
def probed_index(client: OpenSearch, index_name: str) -> str:
    for number in range(DOCUMENTS):
        client.index(index=index_name, id=str(number), body={"caption": f"photo {number}"})
    client.indices.refresh(index=index_name)
    return index_name


def read_state(client: OpenSearch, probed_index: str) -> dict[str, Any]:
    """The state that an attack could change: whether the index is open, its settings, and the version of each document."""
    found = client.cat.indices(
        index=f"{probed_index}*", params={"h": "index,status", "format": "json", "expand_wildcards": "all"}
    )
    client.indices.refresh(index=probed_index)
    hits = client.search(index=probed_index, params={"version": "true"})["hits"]["hits"]
    return {
        "indices": found,
        "settings": client.indices.get_settings(index=probed_index),
        "cluster": client.cluster.get_settings(),
        "documents": sorted((hit["_id"], hit["_version"], hit["_source"]["caption"]) for hit in hits),
    }


def open_opaque_frame(blank_page: Page) -> Frame:
    """The sandboxed frame, whose requests have `Origin: null`."""
    [frame] = blank_page.main_frame.child_frames
    assert frame.evaluate("origin") == "null"
    return frame


@pytest.mark.parametrize("sandboxed", [False, True], ids=["origin", "null-origin"])
def test_no_request_of_a_foreign_script_is_answered_or_done(
    node_url: str, other_origin: str, blank_page: Page, client: OpenSearch, probed_index: str, sandboxed: bool
) -> None:
    before = read_state(client, probed_index)
    assert len(before["documents"]) == DOCUMENTS
    blank_page.goto(other_origin)
    frame = open_opaque_frame(blank_page) if sandboxed else blank_page.main_frame
    seen = frame.evaluate(ATTACKS, [node_url, probed_index])
    assert {name: answer for name, answer in seen.items() if answer not in NO_ANSWER} == {}
    assert read_state(client, probed_index) == before


def test_forms_of_foreign_pages_do_nothing(
    node_url: str, other_origin: str, blank_page: Page, client: OpenSearch, probed_index: str
) -> None:
    before = read_state(client, probed_index)
    blank_page.goto(other_origin)
    assert len(blank_page.evaluate(ELEMENTS, [node_url, probed_index])) == 8
    assert read_state(client, probed_index) == before


def test_browser_tab_shows_the_node(node_url: str, blank_page: Page, probed_index: str) -> None:
    answer = blank_page.goto(f"{node_url}/{probed_index}/_count")
    assert answer is not None
    assert answer.json()["count"] == DOCUMENTS
    assert blank_page.evaluate("(path) => fetch(path).then((answer) => answer.status)", f"/{probed_index}/_search") == 200
