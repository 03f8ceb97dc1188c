// One image: the picture, then all of its tokens, its metadata, and the most similar images.

import { findNeighbors, getImage, LatestTask } from "./api.js";
import { announce, escapeControls, h, renderList, setProps, setText, setValue } from "./dom.js";
import { assignHues, formatWeight, getToken, isPiece, pluralize } from "./format.js";
import { moveGridFocus, renderAnimatedList } from "./grid.js";
import { createHitCard } from "./hit-card.js";
import { buildHitItems, getHitId } from "./hit-list.js";
import { createImageLayout, createTokenBar } from "./image-layout.js";
import { formatCamera, formatPlace, formatSummary, formatUri, getPoint, renderFieldRow } from "./image-metadata.js";
import { ImageViewer } from "./image-viewer.js";
import { copyText, renderError } from "./notifications.js";
import { buildNearQuery, buildSimilarQuery, EMPTY_QUERY } from "./query.js";
import { buildHref, buildSearchHref } from "./routes.js";
import { createTile } from "./tile.js";

const NEIGHBOR_COUNT = 18;
const MAX_PREFETCHED = 6;

/** @type {ImageState} */
const INITIAL_STATE = { requestedId: "", image: null, neighbors: null };

export class ImageView {
  /** @type {ImageRoute} */
  #route = { view: "image", id: "", sort: "weight", find: "", picked: [], pieces: false, explain: false };
  #state = INITIAL_STATE;
  #imageTask = new LatestTask();
  #neighborsTask = new LatestTask();
  /** Images that were requested in advance. @type {Map<string, Promise<ImageResponse>>} */
  #prefetched = new Map();

  /** @param {App} app */
  constructor(app) {
    this.app = app;
    this.viewer = new ImageViewer({ onStep: (step) => this.step(step), onLoad: () => this.#prefetchNeighbors() });
    this.layout = createImageLayout(this.viewer.element);
    this.element = this.layout.element;
    /** @type {HitActions} */
    this.hitActions = {
      buildOpenHref: (id) => buildHref({ view: "image", id, explain: this.#route.explain }),
      buildSimilarHref: (id) => buildSearchHref(buildSimilarQuery(id)),
      selectToken: (token) => this.#togglePicked(token),
      showDuplicates: ({ id }) => app.navigate({ view: "image", id, explain: this.#route.explain }), // whose page lists them
    };
    this.#addListeners();
  }

  #addListeners() {
    const { tokens, neighbors, actions } = this.layout;
    const { find, sort, clear, pieces } = tokens;
    const getSort = () => /** @type {ImageRoute["sort"]} */ (sort.value);
    find.addEventListener("input", () => this.#updateRoute({ find: find.value }, "find"));
    sort.addEventListener("change", () => this.#updateRoute({ sort: getSort() }));
    clear.addEventListener("click", () => this.#updateRoute({ picked: [] }));
    pieces.addEventListener("click", () => this.#updateRoute({ pieces: !this.#route.pieces }));
    neighbors.explain.addEventListener("click", () => this.toggleExplain());
    actions.copyPath.addEventListener("click", () => copyText(formatUri(this.#state.image?.uri ?? ""), "Path"));
    actions.copyLink.addEventListener("click", () => copyText(location.href, "Link"));
  }

  // ---- For the page ----

  /** @param {ImageRoute} route */
  show(route) {
    const isOther = this.#state.requestedId !== route.id;
    const isExplainChanged = this.#route.explain !== route.explain;
    this.#route = route;
    if (this.#needsFocus(isOther)) requestAnimationFrame(() => this.layout.name.focus({ preventScroll: true }));
    const { ids, total } = this.app.getHitSequence();
    this.viewer.showPosition(ids.indexOf(route.id), ids.length, total);
    if (isOther) this.#load();
    else if (this.#state.image) {
      this.#renderTokens(this.#state.image);
      if (isExplainChanged && this.#state.neighbors) this.#renderNeighbors(this.#state.image, this.#state.neighbors);
    }
  }

  getTitle() {
    return this.#state.image ? escapeControls(this.#state.image.name) : "";
  }

  toggleExplain() {
    this.#updateRoute({ explain: !this.#route.explain });
  }

  /** Goes to the next (1) or previous (-1) hit; false if this image isn't a hit. @param {number} step */
  step(step) {
    const isHit = this.app.getHitSequence().ids.includes(this.#route.id);
    if (isHit) this.#goToHit(step);
    return isHit;
  }

  /** Moves the focus between the cards, moves a zoomed picture, or goes to another picture. @param {string} key */
  moveByArrow(key) {
    const neighbors = this.layout.neighbors.element;
    if (neighbors.contains(document.activeElement)) return moveGridFocus(neighbors, key);
    return this.viewer.pan(key) || (key === "ArrowRight" && this.step(1)) || (key === "ArrowLeft" && this.step(-1));
  }

  /** Whether to focus the heading: for another image, unless a button of the viewer has the focus, and if the focus is lost. */
  #needsFocus(/** @type {boolean} */ isOther) {
    const focused = document.activeElement;
    if (this.viewer.element.contains(focused)) return false;
    return isOther || focused === document.body || !focused?.checkVisibility();
  }

  #updateRoute(/** @type {Partial<ImageRoute>} */ fields, mergeKey = "") {
    this.app.navigate({ ...this.#route, ...fields }, { mergeKey, keepScroll: true });
  }

  #togglePicked(/** @type {string} */ token) {
    const { picked } = this.#route;
    this.#updateRoute({ picked: picked.includes(token) ? picked.filter((other) => other !== token) : [...picked, token] });
  }

  // ---- Effects ----

  async #load() {
    const { id } = this.#route;
    const { problem, body, name } = this.layout;
    this.#state = { ...INITIAL_STATE, requestedId: id };
    this.#neighborsTask.abort();
    problem.replaceChildren();
    this.element.setAttribute("aria-busy", "true");
    this.#renderSummary(this.app.getImage(id));
    const { result, error, isStale } = await this.#imageTask.run((signal) => this.#prefetched.get(id) ?? getImage(id, signal));
    if (isStale) return;
    this.#prefetched.delete(id);
    this.element.setAttribute("aria-busy", "false");
    body.hidden = Boolean(error);
    if (error) {
      this.#state = INITIAL_STATE;
      problem.replaceChildren(renderError(error, () => this.#load()));
      setText(name, "No image");
      return;
    }
    this.#state = { ...this.#state, image: result };
    this.app.rememberImages([{ ...this.app.getImage(id), ...result, ...getSize(result) }]);
    this.#renderImage(result);
    this.#loadNeighbors(result);
  }

  async #loadNeighbors(/** @type {ImageResponse} */ image) {
    const { result, error, isStale } = await this.#neighborsTask.run((signal) => findNeighbors(image.id, NEIGHBOR_COUNT, signal));
    if (isStale) return;
    const { problem, empty } = this.layout.neighbors;
    const neighbors = result ?? { hits: [], duplicates: [] };
    this.#state = { ...this.#state, neighbors };
    problem.replaceChildren(...(error ? [renderError(error, () => this.#loadNeighbors(image))] : []));
    this.app.rememberImages(neighbors.hits);
    empty.hidden = Boolean(error || neighbors.hits.length);
    this.#renderNeighbors(image, neighbors);
  }

  async #goToHit(/** @type {number} */ step) {
    const { id } = this.#route;
    const { ids, loadMore } = this.app.getHitSequence();
    const index = ids.indexOf(id) + step;
    if (index >= ids.length && !(await loadMore())) return;
    const target = this.app.getHitSequence().ids[index];
    if (!target || this.#route.id !== id || this.element.hidden) return;
    if (this.#state.image) this.#prefetched.set(id, Promise.resolve(this.#state.image));
    const keepScroll = this.viewer.element.getBoundingClientRect().bottom > innerHeight / 2;
    this.app.navigate({ ...this.#route, id: target, find: "", picked: [] }, { replace: true, keepScroll });
    announce(`image ${this.viewer.position.textContent}, ${this.layout.name.textContent}`);
  }

  /** Loads the previous and the next image with their pictures when the shown one is loaded. */
  #prefetchNeighbors() {
    const { image } = this.#state;
    if (!image || image.id !== this.#route.id || hasDataSaver()) return;
    const { ids, loadMore } = this.app.getHitSequence();
    const index = ids.indexOf(image.id);
    if (index < 0) return;
    if (index === ids.length - 2) loadMore();
    for (const id of [ids[index + 1], ids[index - 1]]) if (id && !this.#prefetched.has(id)) this.#prefetch(id);
    for (const id of [...this.#prefetched.keys()].slice(0, -MAX_PREFETCHED)) this.#prefetched.delete(id);
  }

  async #prefetch(/** @type {string} */ id) {
    const request = getImage(id);
    this.#prefetched.set(id, request);
    try {
      const { original, thumbnail } = await request;
      new Image().src = original ?? thumbnail ?? "";
    } catch {
      this.#prefetched.delete(id); // requested again when it is shown, with an error message
    }
  }

  // ---- Rendering ----

  /** Shows the facts from a list until all are loaded, so that the picture appears at once and nothing jumps. */
  #renderSummary(/** @type {ImageSummary | undefined} */ summary) {
    if (!summary) return;
    this.layout.body.hidden = false;
    setText(this.layout.name, escapeControls(summary.name));
    this.viewer.show({ ...summary, id: this.#route.id, original: undefined });
  }

  #renderImage(/** @type {ImageResponse} */ image) {
    const { name, summary, folder, caption, text, actions, tokens, metadata } = this.layout;
    const { facts, original } = image;
    const found = findMarkedLines(image, this.app.getHitSequence().hits);
    setText(name, escapeControls(image.name));
    this.app.renderTitle();
    this.viewer.show({ ...image, ...getSize(image), found });
    setText(summary, formatSummary(facts));
    this.#renderPlace(facts);
    setText(folder, facts.folder ? `in ${escapeControls(facts.folder)}` : "");
    setText(caption, image.caption ? escapeControls(image.caption) : "");
    text.replaceChildren(...image.text.flatMap((line) => [renderLine(line, found.includes(line)), "\n"]));
    for (const element of [summary, folder, caption, text]) element.hidden = !element.textContent;
    setProps(actions.similar, { href: buildSearchHref(buildSimilarQuery(image.id)) });
    setProps(actions.original, { href: original ?? "#" });
    setProps(actions.download, { href: original ? `${original}?download=1` : "#", download: "" });
    actions.original.hidden = actions.download.hidden = !original;
    setText(tokens.summary, formatTokenSummary(image));
    tokens.pieces.hidden = !image.tokens.some(([token]) => isPiece(token));
    metadata.replaceChildren(renderFieldRow(["uri", image.uri]), ...Object.entries(facts).map(renderFieldRow));
    this.#renderTokens(image);
  }

  /** Shows with what and where a photo was taken, with a search for others from there. */
  #renderPlace(/** @type {ImageFacts} */ facts) {
    const { camera, place, placeRow, near } = this.layout;
    const point = getPoint(facts);
    setText(camera, formatCamera(facts));
    setText(place, formatPlace(facts));
    camera.hidden = !camera.textContent;
    placeRow.hidden = !place.textContent;
    placeRow.replaceChildren(place, ...(point ? [near] : []));
    if (point) setProps(near, { href: buildSearchHref(buildNearQuery(point)), title: "Images from up to 10 km around" });
  }

  #renderTokens(/** @type {ImageResponse} */ image) {
    const { find, sort, pieces, picked } = this.#route;
    const { tokens: section } = this.layout;
    const getHue = assignHues(image.tokens.map(([token]) => token));
    const maxWeight = Math.max(...image.tokens.map(([, weight]) => weight), 1e-9);
    const listed = pieces ? image.tokens : image.tokens.filter(([token]) => !isPiece(token) || picked.includes(token));
    const shown = listed.filter(([token]) => token.toLowerCase().includes(find.toLowerCase()));
    if (sort === "name") shown.sort(([one], [other]) => stripPieceMark(one).localeCompare(stripPieceMark(other)));
    setValue(section.find, find);
    section.sort.value = sort;
    setProps(section.pieces, { "aria-pressed": String(pieces) });
    const items = shown.map(([token, weight]) => {
      return { token, weight, maxWeight, hue: getHue(token), isPicked: picked.includes(token) };
    });
    renderList(section.list, items, getToken, ({ token }) => createTokenBar(token, () => this.#togglePicked(token)));
    setText(section.matchCount, find ? `${pluralize(shown.length, "word")} of ${listed.length}` : "");
    const vector = picked.length ? image.tokens.filter(([token]) => picked.includes(token)) : image.tokens;
    const searched = picked.length ? pluralize(vector.length, "selected word") : "these words";
    setText(section.search, `search with ${searched}`);
    setProps(section.search, { href: buildSearchHref({ ...EMPTY_QUERY, vector }) });
    section.clear.hidden = !picked.length;
  }

  /** The most similar images as pictures, or as cards with explanations; duplicates are separate. */
  #renderNeighbors(/** @type {ImageResponse} */ image, /** @type {NeighborsResponse} */ { hits, duplicates }) {
    const { neighbors: section } = this.layout;
    const { explain } = this.#route;
    this.#renderDuplicates(image, duplicates);
    section.tiles.hidden = explain;
    section.cards.hidden = !explain;
    setProps(section.explain, { "aria-pressed": String(explain) });
    section.explain.hidden = !hits.length;
    this.#renderTiles(section.tiles, explain ? [] : hits);
    const getHue = assignHues(image.tokens.map(([token]) => token));
    const items = explain ? buildHitItems(hits).map((item) => ({ ...item, getHue })) : [];
    renderAnimatedList(section.cards, items, getHitId, (item) => createHitCard(item, this.hitActions));
  }

  #renderDuplicates(/** @type {ImageResponse} */ image, /** @type {Duplicate[]} */ duplicates) {
    const { duplicateSection, duplicates: list } = this.layout.neighbors;
    const all = [...(this.app.getImage(image.id)?.duplicates ?? []), ...duplicates].filter(({ id }) => id !== image.id);
    const files = [...new Map(all.map((duplicate) => [duplicate.id, duplicate])).values()];
    const unknown = { caption: null, title: null, passages: [], price: null, sha256: null, document: null, thumbnail_2x: null };
    const unranked = { score: 0, weak: false, text_score: 0, caption_words: [], contributions: [], tokens: [] };
    const shared = { ...unknown, ...unranked, thumbnail: image.thumbnail, ...getSize(image), duplicates: [] };
    duplicateSection.hidden = !files.length;
    this.#renderTiles(
      list,
      files.map((file) => ({ ...shared, ...file })),
    );
  }

  #renderTiles(/** @type {Element} */ list, /** @type {Hit[]} */ hits) {
    const items = hits.map((hit) => ({ hit }));
    renderList(list, items, getHitId, (item) => createTile(item, this.hitActions));
  }
}

function formatTokenSummary(/** @type {ImageResponse} */ { tokens, explain }) {
  const pieceCount = tokens.filter(([token]) => isPiece(token)).length;
  const words = pluralize(explain.token_count - pieceCount, "word");
  const counts = pieceCount ? `${words} and ${pluralize(pieceCount, "piece")}` : words;
  return `${counts}, total weight ${formatWeight(explain.sum_of_weights)}`;
}

/** The lines of an image that have a word by which it was found. @param {ImageResponse} image @param {Hit[]} hits */
function findMarkedLines({ id, text }, hits) {
  const pieces = hits.find((hit) => hit.id === id)?.passages.flat() ?? [];
  const words = pieces.filter(([, isMatch]) => isMatch).map(([word]) => word.toLowerCase());
  return text.filter((line) => words.some((word) => line.text.toLowerCase().includes(word)));
}

const renderLine = (/** @type {TextLine} */ { text }, /** @type {boolean} */ isMarked) =>
  h(isMarked ? "mark" : "span", {}, escapeControls(text));
const stripPieceMark = (/** @type {string} */ token) => token.replace(/^##/, "");
const getSize = (/** @type {ImageResponse} */ { facts }) => ({ width: facts.width ?? null, height: facts.height ?? null });
/** Chromium only. */
const hasDataSaver = () => Boolean(/** @type {any} */ (navigator).connection?.saveData);
