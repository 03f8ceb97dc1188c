// Search: the query's words at the side, the hits beside them.

import * as api from "./api.js";
import { ADDED, asked, likeImage, requiring, withFactor } from "./change.js";
import { h, keyed, say, set } from "./dom.js";
import { landing, nothingFound } from "./empty.js";
import { arrange } from "./grid.js";
import { hitCard, scaleOf } from "./hit.js";
import { errorNotice } from "./notice.js";
import { inOrder } from "./panel.js";
import { layout, narrowing, narrowingChip, skeleton } from "./search-parts.js";
import { asks, bodyOf, hrefOf, narrows, NOTHING, PAGE } from "./state.js";
import { hues, many, word } from "./words.js";

const PATIENT_MS = 300;
const SLOW_MS = 180;
const MOST = 200;

export function searchView(app) {
  const change = (make, merge) => app.go({ view: "search", query: make(query) }, { merge });
  const act = {
    open: (id) => hrefOf({ view: "image", id }),
    like: (id) => hrefOf({ view: "search", query: likeImage(id) }),
    word: (name) => change((now) => clicked(now, name, answer)),
  };
  const parts = layout(change);
  let query = NOTHING;
  let of = NOTHING;
  let answer = null;
  let hits = [];
  let key = "";
  let since = 0; // when the search began that is under way
  let again = false;
  let found = null;
  let example = null;
  const searching = api.latest();
  const counting = api.latest();

  /** Shows a route; asks the server only if something else is asked than what is there. */
  function show(route) {
    query = route.query;
    drawQuery();
    const asking = keyOf(query);
    if (asking === key && !parts.problem.firstChild) return answer || drawHits();
    again = since > 0 && performance.now() - since < PATIENT_MS;
    if (!again) load();
  }

  /**
   * Asks for the query of the moment. A search under way is waited for a little, then overtaken: a slider that is dragged shows
   * what it does on the way, however fast it moves, and a slow cluster isn't asked once a pixel.
   */
  async function load() {
    const asking = keyOf(query);
    if (!asks(query)) return resting(asking);
    since = performance.now();
    const slow = setTimeout(busy, SLOW_MS);
    const wanted = query;
    const { result, error, stale } = await searching((signal) => pages(wanted, signal));
    clearTimeout(slow);
    if (stale) return;
    since = 0;
    idle();
    if (error) fail(error, asking);
    else take(result, wanted, asking);
    if (again && asking !== keyOf(query)) load();
    again = false;
  }

  function take(result, wanted, asking) {
    key = asking;
    parts.problem.replaceChildren();
    ({ answer, hits } = result);
    of = wanted;
    app.meet(hits);
    drawHits();
    count();
  }

  /** All pages that the URL asks for. */
  async function pages(wanted, signal) {
    const first = await api.search(bodyOf(wanted, Math.min(wanted.count, MOST)), signal);
    const all = [...first.hits];
    let { after } = first;
    while (after && all.length < wanted.count) {
      const next = await api.search({ ...bodyOf(wanted, Math.min(PAGE * 4, wanted.count - all.length)), after }, signal);
      all.push(...next.hits);
      ({ after } = next);
    }
    return { answer: { ...first, after }, hits: all };
  }

  async function more() {
    parts.more.disabled = true;
    const place = hits.length;
    const { result, error, stale } = await searching((signal) =>
      api.search({ ...bodyOf(query, PAGE), after: answer.after }, signal),
    );
    parts.more.disabled = false;
    if (stale) return;
    if (error) return parts.problem.replaceChildren(errorNotice(error, more));
    parts.problem.replaceChildren();
    const there = new Set(hits.map((hit) => hit.id));
    hits = [...hits, ...result.hits.filter((hit) => !there.has(hit.id))];
    answer = { ...answer, after: result.after };
    app.go({ view: "search", query: { ...query, count: Math.max(query.count, hits.length) } }, { replace: true, still: true });
    drawHits();
    parts.grid.children[place]?.querySelector("a.name").focus();
  }

  async function count() {
    const { result, error, stale } = await counting((signal) => api.facets(bodyOf(query), signal));
    if (stale) return;
    found = error ? null : result;
    parts.facets.show({ facets: found, query });
    if (!error) tell(`${many(result.total, "image")} found`);
    drawStatus();
    if (!hits.length) drawNothing();
  }

  /** Nothing to rank by: what there is, and what could be asked. */
  async function resting(asking) {
    searching.stop();
    since = 0;
    answer = null;
    hits = [];
    found = null;
    key = asking;
    tell("");
    idle();
    parts.problem.replaceChildren();
    drawHits();
    if (!narrows(query)) return counting.stop();
    const { result, error, stale } = await counting((signal) => api.facets(bodyOf(query), signal));
    if (stale) return;
    if (error) return fail(error, asking);
    found = result;
    drawHits();
  }

  function fail(error, asking) {
    key = asking;
    parts.problem.replaceChildren(errorNotice(error, load));
    if (!hits.length) parts.empty.replaceChildren();
    parts.grid.classList.add("old");
    app.shell.classList.toggle("resting", !answer);
  }

  function busy() {
    parts.results.setAttribute("aria-busy", "true");
    if (hits.length) return;
    parts.empty.replaceChildren();
    if (!parts.grid.children.length) parts.grid.append(...Array.from({ length: 6 }, skeleton));
  }

  function idle() {
    parts.results.setAttribute("aria-busy", "false");
    parts.grid.classList.remove("old");
    for (const bone of parts.grid.querySelectorAll(".skeleton")) bone.remove();
  }

  function drawQuery() {
    parts.method.show(query.method, app.about);
    keyed(
      parts.active,
      narrowing(query, answer),
      (item) => item.key,
      (item) => narrowingChip(item, change),
    );
    parts.active.hidden = !parts.active.children.length;
    parts.facets.show({ facets: found, query });
    parts.panel.show({ answer: answer ?? { query: [], required: [], excluded: [] }, query, of });
    set(parts.compare, {
      href: hrefOf({ view: "compare", a: query, b: { ...query, method: query.method === "stair" ? "bag" : "stair" } }),
    });
  }

  function drawHits() {
    arrange(
      parts.grid,
      hitsOf(answer, hits),
      (item) => item.hit.id,
      (item) => hitCard(item, act),
    );
    parts.more.hidden = !answer?.after || !hits.length;
    app.shell.classList.toggle("resting", !answer);
    drawQuery();
    drawStatus();
    if (hits.length) parts.empty.replaceChildren();
    else if (!answer) rest();
    else drawNothing();
  }

  /** The start: words to try, and what one of them finds. */
  async function rest() {
    const page = landing(app, found, (text) => change((now) => asked(now, text)));
    parts.empty.replaceChildren(page);
    parts.problem.replaceChildren(...(app.trouble ? [errorNotice(app.trouble, app.know)] : []));
    const name = page.example;
    if (!name || found) return;
    if (example?.name !== name) {
      const { result } = await searching((signal) => api.search({ text: name, k: 4 }, signal));
      if (!result || !page.isConnected) return;
      example = { name, answer: result };
    }
    const cards = hitsOf(example.answer, example.answer.hits);
    page
      .querySelector(".specimen")
      .append(
        h("h2", {}, "Example: ", word(name)),
        h("ol", { class: "grid", "aria-label": "Example" }, cards.map(drawnCard)),
      );
  }

  function drawnCard(item) {
    const card = hitCard(item, act);
    card.update(item);
    return card;
  }

  function drawNothing() {
    parts.empty.replaceChildren(nothingFound(query, app.corpus, change));
  }

  function drawStatus() {
    const total = found && answer ? found.total : null;
    const shown =
      total === null
        ? many(hits.length, "image")
        : hits.length < total
          ? `${hits.length} of ${many(total, "image")}`
          : many(total, "image");
    const cut = answer?.truncated?.length ? `, ${many(answer.truncated.length, "light word")} left out` : "";
    say(parts.count, answer ? `${shown}, ${answer.took_ms} ms${cut}` : "");
    parts.status.hidden = !answer;
  }

  const tell = (text) => say(document.getElementById("said"), text);

  parts.more.addEventListener("click", more);
  return {
    element: parts.element,
    show,
    ids: () => hits.map((hit) => hit.id),
    grid: parts.grid,
    side: parts.side,
    query: () => query,
  };
}

/** What cards are drawn from: hits, with the colours and the scale that they share. */
function hitsOf(answer, hits) {
  const hueOf = hues(answer ? inOrder(answer.query).map((item) => item.token) : []);
  const required = new Set(answer?.required ?? []);
  const scale = scaleOf(hits);
  return hits.map((hit) => ({ hit, scale, hueOf, required }));
}

const keyOf = (query) => JSON.stringify({ ...bodyOf(query, 1) });

/** What a click on a word does: a word of the query is required, or no longer; another one is added. */
function clicked(query, name, answer) {
  if (!answer?.query.some((item) => item.token === name)) return withFactor(query, name, ADDED);
  return requiring(query, name, answer.required.includes(name));
}
