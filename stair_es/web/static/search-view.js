// Search: pictures in a gallery, or cards that explain each hit, with the token weights of the query in a side panel.

import { countFacets, LatestTask, search } from "./api.js";
import { createDuplicatesDialog } from "./dialogs.js";
import { announce, renderList, setProps, setText } from "./dom.js";
import { renderNoResults, renderStartPage, renderUnknownWords } from "./empty-states.js";
import { formatCount, getToken, pluralize } from "./format.js";
import { GalleryRows } from "./gallery-rows.js";
import { moveGridFocus, renderAnimatedList } from "./grid.js";
import { createHitCard } from "./hit-card.js";
import { buildHitItems, getHitId, listRelatedTokens } from "./hit-list.js";
import { renderError } from "./notifications.js";
import {
  ADDED_WEIGHT,
  buildSearchBody,
  buildSimilarQuery,
  getQueryKey,
  hasRanking,
  isEmptyQuery,
  PAGE_SIZE,
  setFactor,
  toggleRequired,
} from "./query.js";
import { createRelatedWord, formatMatchCount, renderNoGoodMatch, renderNotes } from "./result-summary.js";
import { buildHref, buildSearchHref } from "./routes.js";
import { createSearchLayout } from "./search-layout.js";
import { INITIAL_STATE, needsSearch, reduce, selectResults } from "./search-state.js";
import { createSkeletons, createTile } from "./tile.js";

/** How long a running search isn't aborted for a newer query. */
const MIN_SEARCH_MS = 300;
/** When a running search is shown. */
const SLOW_SEARCH_MS = 180;
/** When the page says that it still waits. */
const STALLED_SEARCH_MS = 3000;
const STALLED_TEXT = "Still waiting for the cluster";
const MAX_HITS_PER_REQUEST = 200;
const SKELETON_COUNT = 24;
/** Distance to the end of the page at which the next images are requested. */
const PREFETCH_MARGIN_PX = 1500;
const STICKY_HEADER_PX = 120;
/** What the results are rendered from, besides the view of the query. */
const RESULT_KEYS = /** @type {const} */ (["response", "hits", "isWeakExpanded", "isStalled", "hasSkeletons", "error"]);

export class SearchView {
  #state = INITIAL_STATE;
  /** @type {Error | null} */
  #renderedError = null;
  /** What the start page was rendered from; undefined before. @type {AboutResponse | null | undefined} */
  #renderedAbout = undefined;
  #canTeach = false;
  #searchTask = new LatestTask();
  #countTask = new LatestTask();
  /** The page being loaded. @type {Promise<boolean> | null} */
  #pageRequest = null;

  /** @param {App} app */
  constructor(app) {
    this.app = app;
    this.updateQuery = (/** @type {QueryUpdate} */ update, /** @type {string} */ mergeKey = "") =>
      app.navigate({ view: "search", query: update(this.#state.query) }, { mergeKey });
    const buildOpenHref = (/** @type {string} */ id) => buildHref({ view: "image", id });
    const duplicates = createDuplicatesDialog(buildOpenHref);
    /** @type {HitActions} */
    this.hitActions = {
      buildOpenHref,
      buildSimilarHref: (id) => buildSearchHref(this.buildSimilarQuery(id)),
      selectToken: (token) => this.updateQuery((query) => this.#selectToken(query, token)),
      showDuplicates: duplicates.show,
    };
    this.layout = createSearchLayout(this.updateQuery);
    this.element = this.layout.element;
    this.element.append(duplicates.element);
    this.rows = { strong: new GalleryRows(this.layout.strong), weak: new GalleryRows(this.layout.weak) };
    this.endObserver = new IntersectionObserver(
      (entries) => entries.some((entry) => entry.isIntersecting) && !this.element.hidden && this.#showMore(false),
      { rootMargin: `${PREFETCH_MARGIN_PX}px` },
    );
    this.layout.more.addEventListener("click", () => this.#showMore(true));
    this.layout.divider.addEventListener("click", () => this.#dispatch({ type: "weakToggled" }));
  }

  // ---- For the page ----

  /** Shows a route; sends a request only if the query differs from the shown one. @param {SearchRoute} route */
  show({ query }) {
    this.#dispatch({ type: "queryChanged", query });
    if (!needsSearch(this.#state)) return;
    // A running search gets a little time before it is aborted: while a slider is dragged, the page shows intermediate
    // results at any speed, and a slow cluster doesn't get a request for each pixel.
    const { pending } = this.#state;
    if (!pending || performance.now() - pending.startedMs >= MIN_SEARCH_MS) this.#search();
  }

  /** The shown hits in order, for the previous and next buttons of an image's page. @returns {HitSequence} */
  getHitSequence() {
    const { response, facets } = this.#state;
    const { strong, shownWeak, mayHaveMatches } = selectResults(this.#state);
    const hits = [...strong, ...shownWeak];
    const ids = hits.map(({ id }) => id);
    const hasMore = response?.after && facets && (shownWeak.length || mayHaveMatches);
    const total = hasMore ? Math.max(ids.length, facets.total + facets.weak) : ids.length;
    return { ids, hits, total, loadMore: total > ids.length ? () => this.#loadPage() : async () => false };
  }

  /** The query for images like another, in the same view. @param {string} id */
  buildSimilarQuery(id) {
    return { ...buildSimilarQuery(id), explain: this.#state.query.explain };
  }

  /** Forgets the answers: the index has changed. */
  forgetAnswers() {
    this.#dispatch({ type: "indexChanged" });
  }

  toggleExplain() {
    this.updateQuery((query) => ({ ...query, explain: !query.explain }));
  }

  /** @param {string} key */
  moveFocus(key) {
    return moveGridFocus(this.layout.results, key);
  }

  /** A click on a token toggles whether one of the query is required, and adds another. */
  #selectToken(/** @type {Query} */ query, /** @type {string} */ token) {
    const { response } = this.#state;
    if (!response?.query.some((each) => each.token === token)) return setFactor(query, token, ADDED_WEIGHT);
    return toggleRequired(query, token, response.required.includes(token));
  }

  // ---- Effects ----

  #dispatch(/** @type {SearchAction} */ action) {
    const previous = this.#state;
    this.#state = reduce(previous, action);
    const isViewChanged = previous.query.explain !== this.#state.query.explain;
    if (isViewChanged) keepScrollPosition(this.layout.results, () => this.#render(previous, isViewChanged));
    else this.#render(previous, isViewChanged);
  }

  async #search() {
    const { query } = this.#state;
    this.app.teach.hidePreview();
    this.#dispatch({ type: "searchStarted", query, startedMs: performance.now() });
    const slowTimer = setTimeout(() => this.#dispatch({ type: "searchSlowed" }), SLOW_SEARCH_MS);
    const stalledTimer = setTimeout(() => {
      this.#dispatch({ type: "searchStalled" });
      announce(STALLED_TEXT);
    }, STALLED_SEARCH_MS);
    const { result, error, isStale } = await this.#searchTask.run((signal) => searchPages(query, signal));
    for (const timer of [slowTimer, stalledTimer]) clearTimeout(timer);
    if (isStale) return;
    this.#countTask.abort(); // its numbers would belong to the previous response
    if (error) {
      this.#dispatch({ type: "searchFailed", error });
      this.#countCorpus(null);
    } else {
      this.app.rememberImages(result.hits);
      this.#dispatch({ type: "searchSucceeded", query, response: result });
    }
    if (getQueryKey(query) !== getQueryKey(this.#state.query)) this.#search();
    else if (!error) this.#countFacets();
  }

  async #countFacets() {
    const { query } = this.#state;
    const body = buildSearchBody(query, PAGE_SIZE);
    const { result, error, isStale } = await this.#countTask.run((signal) => countFacets(body, signal));
    if (isStale) return;
    this.#dispatch({ type: "facetsCounted", facets: error ? null : result });
    if (error) return;
    this.#countCorpus(isEmptyQuery(query) ? result.facets : null);
    announce(`${hasRanking(query) ? pluralize(result.total, "match", "matches") : pluralize(result.total, "image")} found`);
  }

  /** Counts the facets of all images once, unless that was done. */
  async #countCorpus(/** @type {Facet[] | null} */ counted) {
    if (this.#state.corpusFacets) return;
    this.#dispatch({ type: "corpusCounted", corpusFacets: counted ?? [] });
    if (counted) return;
    const response = await countFacets({}).catch(() => null);
    this.#dispatch({ type: "corpusCounted", corpusFacets: response?.facets ?? null });
  }

  /** Adds the next page. If the user requested it, its first image gets the focus. */
  async #showMore(/** @type {boolean} */ isRequested) {
    const { weak, strong } = this.layout;
    const list = weak.hidden ? strong : weak;
    const index = list.children.length;
    const heldBack = list.querySelector(".waiting");
    if (!(await this.#loadPage())) return;
    const { query, hits } = this.#state;
    const counted = { ...query, count: Math.max(query.count, hits.length) };
    if (!this.element.hidden) this.app.navigate({ view: "search", query: counted }, { replace: true, keepScroll: true });
    if (!isRequested) return;
    const first = heldBack ?? list.children[index];
    /** @type {HTMLElement | null} */ (first?.querySelector("a.name, a.picture"))?.focus();
  }

  /** Loads the next page, once for concurrent callers; false if there is none. */
  async #loadPage() {
    if (this.#state.pending || !this.#state.response?.after) return false;
    this.#pageRequest ??= this.#requestPage().finally(() => {
      this.#pageRequest = null;
    });
    return this.#pageRequest;
  }

  async #requestPage() {
    const { query, response } = this.#state;
    const body = { ...buildSearchBody(query, PAGE_SIZE), after: response?.after };
    const { result, error, isStale } = await this.#searchTask.run((signal) => search(body, signal));
    if (isStale) return false;
    if (error) {
      this.#dispatch({ type: "pageFailed", error });
      return false;
    }
    this.app.rememberImages(result.hits);
    this.#dispatch({ type: "pageLoaded", response: result });
    return true;
  }

  // ---- Rendering ----

  #render(/** @type {SearchState} */ previous, /** @type {boolean} */ isViewChanged) {
    const state = this.#state;
    const hasNewResults = isViewChanged || RESULT_KEYS.some((key) => state[key] !== previous[key]);
    setProps(this.layout.results, { "aria-busy": String(state.isSlow) });
    if (hasNewResults) this.#renderLists();
    this.#renderQuery();
    this.#renderStart();
    this.#renderErrors(previous);
    const canTeach = Boolean(this.app.about?.teach);
    if (hasNewResults || canTeach !== this.#canTeach) {
      this.#canTeach = canTeach;
      this.#renderNotes();
    }
    if (hasNewResults || state.facets !== previous.facets) this.#renderStatus();
    if (hasNewResults || state.pageError !== previous.pageError) this.#renderRows();
    if (hasNewResults) this.#observeEnd();
  }

  #renderLists() {
    const { strong, weak, divider, more } = this.layout;
    const { response, hits, hasSkeletons } = this.#state;
    const results = selectResults(this.#state);
    divider.hidden = !results.hasDivider;
    more.hidden = !results.hasMore;
    if (hasSkeletons) {
      strong.hidden = false;
      strong.className = "gallery found";
      strong.replaceChildren(...createSkeletons(SKELETON_COUNT));
      weak.replaceChildren();
      return;
    }
    const items = buildHitItems([...results.strong, ...results.weak], response?.query, response?.required);
    const strongCount = results.strong.length;
    this.#renderHits(strong, "found", items.slice(0, strongCount));
    this.#renderHits(weak, "weak", items.slice(strongCount, strongCount + results.shownWeak.length));
    strong.hidden = !strongCount && hits.length > 0;
    weak.hidden = !results.shownWeak.length;
  }

  /** Renders tiles or cards, depending on the selected view. */
  #renderHits(/** @type {HTMLElement} */ list, /** @type {string} */ name, /** @type {HitItem[]} */ items) {
    const { query, error } = this.#state;
    const view = query.explain ? "grid" : "gallery";
    const createItem = query.explain ? createHitCard : createTile;
    if (!list.classList.contains(view)) list.replaceChildren();
    list.className = `${view} ${name}${error ? " old" : ""}`;
    const render = query.explain ? renderAnimatedList : renderList;
    render(list, items, getHitId, (item) => createItem(item, this.hitActions));
    this.app.teach.showMarks(list);
  }

  #renderQuery() {
    const { query, response, answeredQuery, facets, corpusFacets } = this.#state;
    const { status, filters, order, panel, drawer } = this.layout;
    const { about } = this.app;
    order.update(query, about);
    status.method.update(query.method, about);
    const understood = response?.conditions ?? [];
    filters.update({ query, about, corpusFacets, understood, facets: facets?.facets ?? null, total: facets?.total ?? null });
    panel.update({ response, query, answeredQuery });
    drawer.button.hidden = !hasRanking(query);
    status.ranking.hidden = !hasRanking(query) || !about?.captions;
    for (const [link, explain] of /** @type {const} */ ([
      [status.gallery, false],
      [status.explain, true],
    ])) {
      const isCurrent = explain === query.explain;
      setProps(link, { href: buildSearchHref({ ...query, explain }), "aria-current": isCurrent ? "true" : null });
    }
    document.body.classList.toggle("explain", query.explain);
  }

  /** The start page has words to try above the newest images. What the user opened in it stays open. */
  #renderStart() {
    const { start } = this.layout;
    const { about } = this.app;
    const isStart = isEmptyQuery(this.#state.query);
    document.body.classList.toggle("resting", isStart);
    start.hidden = !isStart;
    if (!isStart || about === this.#renderedAbout) return;
    start.replaceChildren(renderStartPage(this.app, this.updateQuery));
    this.#renderedAbout = about;
  }

  #renderErrors(/** @type {SearchState} */ previous) {
    const { query, error: searchError, pageError } = this.#state;
    const { problem, pageProblem } = this.layout;
    const { aboutError } = this.app;
    const error = (isEmptyQuery(query) && aboutError) || searchError;
    const retry = () => (this.app.aboutError ? this.app.loadAbout() : this.#search());
    if (error !== this.#renderedError) problem.replaceChildren(...(error ? [renderError(error, retry)] : []));
    this.#renderedError = error;
    if (pageError === previous.pageError) return;
    pageProblem.replaceChildren(...(pageError ? [renderError(pageError, () => this.#showMore(true))] : []));
  }

  /** What is said about the result above it, or instead of it. */
  #renderNotes() {
    const { notes, verdict, related, empty } = this.layout;
    const { query, response, hits, error, hasSkeletons } = this.#state;
    const { strong, weak, isUnknown } = selectResults(this.#state);
    const isAnswered = response && !error && !hasSkeletons;
    const words = isAnswered && hasRanking(query) ? listRelatedTokens(response, query.text) : [];
    renderList(related, words, getToken, ({ token }) => createRelatedWord(token, this.updateQuery));
    related.hidden = !words.length && !(hasSkeletons && hasRanking(query)); // has its place when they arrive
    for (const element of [notes, verdict, empty]) element.replaceChildren();
    if (!isAnswered) return;
    notes.append(...renderNotes(query, response, this.#canTeach ? (word) => this.app.teach.open(word) : null));
    if (!hits.length) empty.append(renderNoResults(query, response, this.app, this.updateQuery));
    else if (isUnknown) verdict.append(...renderUnknownWords(response, this.app, this.updateQuery));
    else if (!strong.length) verdict.append(...renderNoGoodMatch(response, weak[0]));
  }

  #renderStatus() {
    const { status, divider } = this.layout;
    const { query, response, facets, isWeakExpanded, isStalled, error, hasSkeletons } = this.#state;
    const { strong, weak, mayHaveMatches } = selectResults(this.#state);
    const counts = {
      strong: strong.length,
      weak: facets?.weak ?? weak.length,
      total: facets?.total ?? null,
      hasMore: mayHaveMatches,
    };
    const isAnswered = response && !error && !hasSkeletons && !isStalled;
    const dropped = response?.truncated?.length ? `, ${pluralize(response.truncated.length, "light word")} left out` : "";
    setText(status.count, isAnswered ? formatMatchCount(query, counts) : isStalled ? STALLED_TEXT : "");
    setText(status.took, isAnswered && hasRanking(query) ? `, ${response.took_ms} ms${dropped}` : "");
    setText(divider, `Weak matches: ${formatCount(counts.weak)}`);
    setProps(divider, { "aria-expanded": String(isWeakExpanded) });
  }

  /** Whether more images will follow by themselves. */
  #willContinue() {
    return !this.layout.more.hidden && !this.#state.pageError;
  }

  /** Holds back the last row of the list that will continue, if any. */
  #renderRows() {
    if (this.#state.hasSkeletons) return;
    const continued = this.layout.weak.hidden ? this.rows.strong : this.rows.weak;
    for (const rows of Object.values(this.rows)) rows.update(this.#willContinue() && rows === continued);
  }

  /** Observes the end of the page again, because the observer reports only changes. */
  #observeEnd() {
    this.endObserver.disconnect();
    if (this.#willContinue()) this.endObserver.observe(this.layout.more);
  }
}

/** The first page, with the hits of all pages that the URL requests. */
async function searchPages(/** @type {Query} */ query, /** @type {AbortSignal} */ signal) {
  const first = await search(buildSearchBody(query, Math.min(query.count, MAX_HITS_PER_REQUEST)), signal);
  const hits = [...first.hits];
  let { after } = first;
  while (after && hits.length < query.count) {
    const size = Math.min(MAX_HITS_PER_REQUEST, query.count - hits.length);
    const page = await search({ ...buildSearchBody(query, size), after }, signal);
    hits.push(...page.hits);
    after = page.after;
  }
  return { ...first, hits, after };
}

/** Renders, and keeps the image at the top of the screen in place. */
function keepScrollPosition(/** @type {Element} */ results, /** @type {() => void} */ render) {
  const listItems = () => [.../** @type {NodeListOf<HTMLElement>} */ (results.querySelectorAll("[data-id]"))];
  const top = listItems().find((item) => item.getBoundingClientRect().bottom > STICKY_HEADER_PX);
  render();
  if (!top || !scrollY) return;
  const item = listItems().find(({ dataset }) => dataset.id === top.dataset.id);
  item?.scrollIntoView({ block: "center", behavior: "instant" });
}
