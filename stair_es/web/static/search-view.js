// Search: pictures in a gallery, or cards that explain each hit, with the words of the query in a side panel.

import * as api from "./api.js";
import { ADDED, asked, likeImage, requiring, withFactor } from "./change.js";
import { h, keyed, say, set } from "./dom.js";
import { landing, nothingFound, noWordKnown } from "./empty.js";
import { arrange } from "./grid.js";
import { hitCard } from "./hit.js";
import { fold, itemsOf, split } from "./hits.js";
import { errorNotice } from "./notice.js";
import { rowsOf } from "./rows.js";
import { layout } from "./search-parts.js";
import { asks, bodyOf, hrefOf, narrows, NOTHING, PAGE } from "./state.js";
import { copiesDialog, skeletons, tile } from "./tile.js";
import { countLine, countWeak, knowsNone, noGoodMatch, notesOf } from "./verdict.js";
import { many } from "./words.js";

const PATIENT_MS = 300;
const SLOW_MS = 180;
const MOST = 200;
const BONES = 24;
/** Distance to the end of the page at which the next images are requested. */
const AHEAD = "1500px";

export function searchView(app) {
  const change = (make, merge) => app.go({ view: "search", query: make(query) }, { merge });
  const act = {
    open: (id) => hrefOf({ view: "image", id }),
    like: (id) => hrefOf({ view: "search", query: alike(id) }),
    word: (name) => change((now) => clicked(now, name, answer)),
    copies: (hit) => copies.show(hit),
  };
  const parts = layout(app, change);
  const copies = copiesDialog(act.open);
  const rows = [parts.grid, parts.weak].map(rowsOf);
  let query = NOTHING;
  let of = NOTHING;
  let answer = null;
  let hits = []; // unfolded: counted by `n` in the URL
  let shown = split([]);
  let weakOpen = false;
  let lastPage = []; // weak matches may be followed by matches that have each word of the query
  let key = "";
  let since = 0; // start of the running search
  let coming = ""; // key of the running search
  let again = false;
  let found = null;
  let paging = null; // the page being loaded
  const searching = api.latest();
  const counting = api.latest();
  const alike = (id) => ({ ...likeImage(id), explain: query.explain });

  /** Shows a route; sends a request only if the query differs from the shown one. */
  function show(route) {
    const turned = query.explain !== route.query.explain;
    query = route.query;
    if (turned) atPlace(drawHits);
    else drawQuery();
    drawStart(); // in case the facts about the server have arrived
    if (since ? keyOf(query) === coming : keyOf(query) === key && !parts.problem.firstChild) return;
    again = since > 0 && performance.now() - since < PATIENT_MS;
    if (!again) load();
  }

  /**
   * Requests the current query. A running search gets a little time, then it is aborted: while a slider is dragged, the page shows
   * intermediate results at any speed, and a slow cluster doesn't get a request for each pixel.
   */
  async function load() {
    const asking = keyOf(query);
    coming = asking;
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
    if (asking !== key) weakOpen = false;
    key = asking;
    ({ answer, hits } = result);
    lastPage = hits.slice(-PAGE);
    of = wanted;
    found = null;
    parts.problem.replaceChildren();
    parts.trouble.replaceChildren();
    app.meet(hits);
    drawHits();
    count();
  }

  /** Loads all pages that the URL requests. */
  async function pages(wanted, signal) {
    const first = await api.search(bodyOf(wanted, Math.min(wanted.count, MOST)), signal);
    const all = [...first.hits];
    let { after } = first;
    while (after && all.length < wanted.count) {
      const next = await api.search({ ...bodyOf(wanted, Math.min(MOST, wanted.count - all.length)), after }, signal);
      all.push(...next.hits);
      ({ after } = next);
    }
    return { answer: { ...first, after }, hits: all };
  }

  /** Adds the next page; `byHand` if the user requested it: then its first image gets the focus. */
  async function more(byHand) {
    const list = parts.weak.hidden ? parts.grid : parts.weak;
    const place = list.children.length;
    const held = list.querySelector(".waiting");
    if (!(await extend())) return;
    const counted = { ...query, count: Math.max(query.count, hits.length) };
    if (!parts.element.hidden) app.go({ view: "search", query: counted }, { replace: true, still: true });
    if (byHand) (held ?? list.children[place])?.querySelector("a.name, a.picture").focus();
  }

  /** Loads the next page, once for concurrent callers; false if there is none. */
  async function extend() {
    if (since || !answer?.after) return false;
    paging ??= nextPage().finally(() => (paging = null));
    return paging;
  }

  async function nextPage() {
    const { result, error, stale } = await searching((signal) =>
      api.search({ ...bodyOf(query, PAGE), after: answer.after }, signal),
    );
    if (stale) return false;
    parts.trouble.replaceChildren(...(error ? [errorNotice(error, () => more(true))] : []));
    if (error) drawRows();
    if (error) return false;
    hits = [...hits, ...result.hits];
    lastPage = result.hits;
    answer = { ...answer, after: result.after };
    app.meet(result.hits);
    drawHits();
    return true;
  }

  /** The shown hits in order, and a way to load more, for the previous and next buttons of an image's page. */
  function listed() {
    const closed = parts.weak.hidden;
    const all = [...shown.strong, ...(closed ? [] : shown.weak)];
    const total = answer?.after && found && (!closed || haveMatches(lastPage)) ? Math.max(all.length, found.total) : all.length;
    return { ids: all.map((hit) => hit.id), total, more: total > all.length ? extend : async () => false };
  }

  async function count() {
    const wanted = query;
    const { result, error, stale } = await counting((signal) => api.facets(bodyOf(wanted, PAGE), signal));
    if (stale) return;
    found = error ? null : result;
    if (!error) countAll(asks(wanted) || narrows(wanted) ? null : result);
    drawFilters();
    if (!error) tell(`${many(result.total, "image")} found`);
    drawStatus();
  }

  /** Counts all images once, so that the filters keep their places for every result. */
  async function countAll(result) {
    if (app.corpus) return;
    app.corpus = result ?? { facets: [] };
    if (result) return;
    app.corpus = await api.facets({}).catch(() => null);
    drawFilters();
  }

  function fail(error, asking) {
    key = asking;
    found = null;
    parts.problem.replaceChildren(errorNotice(error, () => (app.trouble ? app.know() : load())));
    for (const place of [parts.empty, parts.notes, parts.verdict]) place.replaceChildren();
    for (const list of [parts.grid, parts.weak]) list.classList.add("old");
    parts.more.hidden = true;
    for (const text of [parts.count, parts.took]) say(text, "");
    countAll(null);
  }

  function busy() {
    parts.results.setAttribute("aria-busy", "true");
    if (hits.length && isVariant(query, of)) return;
    for (const place of [parts.grid, parts.weak, parts.empty, parts.notes, parts.verdict]) place.replaceChildren();
    for (const place of [parts.divider, parts.more]) place.hidden = true;
    parts.grid.hidden = false;
    parts.grid.className = "gallery found";
    parts.grid.append(...skeletons(BONES));
  }

  function idle() {
    parts.results.setAttribute("aria-busy", "false");
    for (const list of [parts.grid, parts.weak]) list.classList.remove("old");
    for (const bone of parts.grid.querySelectorAll(".skeleton")) bone.remove();
  }

  function drawQuery() {
    parts.method.show(query.method, app.about);
    drawFilters();
    parts.panel.show({ answer: answer ?? { query: [], required: [], excluded: [] }, query, of });
    set(parts.compare, {
      href: hrefOf({ view: "compare", a: query, b: { ...query, method: query.method === "stair" ? "bag" : "stair" } }),
    });
    for (const ranking of [parts.by, parts.compare, parts.opener]) ranking.hidden = !asks(query);
    for (const [name, link] of Object.entries(parts.modes)) {
      const explain = name === "explain";
      set(link, {
        href: hrefOf({ view: "search", query: { ...query, explain } }),
        "aria-current": explain === query.explain ? "true" : null,
      });
    }
    app.shell.classList.toggle("explain", query.explain);
  }

  function drawFilters() {
    parts.filters.show({ facets: found?.facets ?? null, query, about: app.about, total: found?.total ?? null });
  }

  function drawHits() {
    shown = split(fold(hits));
    const items = itemsOf(answer, [...shown.strong, ...shown.weak]);
    const senseless = !shown.strong.length && knowsNone(answer);
    const open = weakOpen || !(shown.strong.length || senseless);
    drawList(parts.grid, items.slice(0, shown.strong.length));
    drawList(parts.weak, open ? items.slice(shown.strong.length) : []);
    parts.grid.hidden = !shown.strong.length && Boolean(hits.length);
    parts.weak.hidden = !parts.weak.children.length;
    parts.divider.hidden = !shown.weak.length || !(shown.strong.length || senseless);
    parts.more.hidden = !answer?.after || !hits.length || !(open || haveMatches(lastPage));
    drawQuery();
    drawStart();
    parts.notes.replaceChildren(...(answer ? notesOf(query, answer) : []));
    const none = hits.length > 0 && !shown.strong.length;
    const verdict = () => (senseless ? noWordKnown(answer, app, change) : noGoodMatch(answer, shown.weak[0]));
    parts.verdict.replaceChildren(...(none ? verdict() : []));
    parts.empty.replaceChildren(...(answer && !hits.length ? [nothingFound(query, answer, app, change)] : []));
    drawStatus();
    drawRows();
    watch();
  }

  /** Holds back the last row of the list that will continue, if any. */
  function drawRows() {
    const more = !parts.more.hidden && !parts.trouble.firstChild;
    for (const [place, each] of rows.entries()) each.show(more && place === Number(!parts.weak.hidden));
  }

  /** Draws tiles or cards, depending on the selected view. */
  function drawList(list, items) {
    const mode = query.explain ? "grid found" : "gallery found";
    const named = list === parts.weak ? mode.replace("found", "weak") : mode;
    if (list.className !== named) {
      list.replaceChildren();
      list.className = named;
    }
    const make = query.explain ? hitCard : tile;
    (query.explain ? arrange : keyed)(
      list,
      items,
      (item) => item.hit.id,
      (item) => make(item, act),
    );
  }

  /** The start page has words to try above the newest images. */
  function drawStart() {
    const start = !asks(query) && !narrows(query);
    app.shell.classList.toggle("resting", start);
    parts.start.hidden = !start;
    if (!start) return;
    const page = landing(app, (text) => change((now) => asked(now, text)));
    if (!page.isEqualNode(parts.start.firstElementChild)) parts.start.replaceChildren(page);
    if (app.trouble) parts.problem.replaceChildren(errorNotice(app.trouble, app.know));
  }

  function drawStatus() {
    const counts = {
      strong: shown.strong.length,
      weak: shown.weak.length,
      total: found ? found.total : null,
      more: Boolean(answer?.after) && haveMatches(lastPage),
    };
    const cut = answer?.truncated?.length ? `, ${many(answer.truncated.length, "light word")} left out` : "";
    const line = answer ? countLine(query, answer, counts) : "";
    say(parts.count, line);
    say(parts.took, line && asks(query) ? `, ${answer.took_ms} ms${cut}` : "");
    say(parts.divider, `Weak matches: ${countWeak(counts).toLocaleString("en")}`);
    set(parts.divider, { "aria-expanded": String(weakOpen) });
  }

  /** Observes the end of the page again, because the observer reports only changes. */
  function watch() {
    ahead.disconnect();
    if (!parts.more.hidden && !parts.trouble.firstChild) ahead.observe(parts.more);
  }

  /** Redraws, and keeps the image at the top of the screen in place. */
  function atPlace(draw) {
    const items = [...parts.results.querySelectorAll("[data-id]")];
    const top = items.find((item) => item.getBoundingClientRect().bottom > 120);
    draw();
    if (!top || !scrollY) return;
    const now = [...parts.results.querySelectorAll("[data-id]")].find((item) => item.dataset.id === top.dataset.id);
    now?.scrollIntoView({ block: "center", behavior: "instant" });
  }

  const tell = (text) => say(document.getElementById("said"), text);
  const ahead = new IntersectionObserver(
    (entries) => entries.some((entry) => entry.isIntersecting) && !parts.element.hidden && more(false),
    { rootMargin: AHEAD },
  );

  parts.more.addEventListener("click", () => more(true));
  parts.divider.addEventListener("click", () => {
    weakOpen = !weakOpen;
    drawHits();
  });
  parts.element.append(copies);
  return {
    element: parts.element,
    show,
    listed,
    grid: parts.results,
    side: parts.side,
    query: () => query,
    alike,
    turn: () => change((now) => ({ ...now, explain: !now.explain })),
  };
}

const haveMatches = (hits) => hits.some((hit) => !hit.weak);

/** Whether two queries differ only in weights or conditions: then the first result is shown until the second arrives. */
const isVariant = (one, other) => one.text === other.text && one.like === other.like && keyOf({ ...NOTHING, vector: one.vector }) === keyOf({ ...NOTHING, vector: other.vector });

const keyOf = (query) => JSON.stringify({ ...bodyOf(query, 1) });

/** Handles a click on a word: toggles whether a word of the query is required, and adds other words. */
function clicked(query, name, answer) {
  if (!answer?.query.some((item) => item.token === name)) return withFactor(query, name, ADDED);
  return requiring(query, name, answer.required.includes(name));
}
