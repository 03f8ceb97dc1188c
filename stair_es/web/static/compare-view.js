// Two rankings side by side: two queries, or one query with two methods. Lines between them show what moved.

import { LatestTask, search } from "./api.js";
import { ComparedSide, createCompareLayout, RANKING_SIZE } from "./compare-layout.js";
import { announce, createSvgElement, h, renderList, setProps, setText } from "./dom.js";
import { assignHues, pluralize, renderToken, sortQueryTokens } from "./format.js";
import { renderError } from "./notifications.js";
import { buildSearchBody, EMPTY_QUERY, hasRanking, METHODS } from "./query.js";
import { computeOverlap, findMoves, getDirection, rankHits } from "./rankings.js";
import { buildHref } from "./routes.js";

const OVERLAP_STEPS = [1, 3, 5, 10, 20, 50];
/** The sides, as the URL names them. */
const SIDES = /** @type {const} */ (["a", "b"]);

/** @param {Query} query */
const buildRankingBody = (query) => buildSearchBody(query, RANKING_SIZE);

export class CompareView {
  /** @type {CompareRoute} */
  #route = { view: "compare", a: EMPTY_QUERY, b: EMPTY_QUERY, k: 0 };
  /** @type {Record<SideName, {task: LatestTask, requestKey: string, response: SearchResponse | null}>} */
  #searches = {
    a: { task: new LatestTask(), requestKey: "", response: null },
    b: { task: new LatestTask(), requestKey: "", response: null },
  };

  /** @param {App} app */
  constructor(app) {
    this.app = app;
    this.sides = { a: new ComparedSide("a", "Left", "right"), b: new ComparedSide("b", "Right", "left") };
    this.layout = createCompareLayout(this.sides.a, this.sides.b);
    this.element = this.layout.element;
    const { pair, count, swap } = this.layout;
    for (const type of ["pointerover", "focusin"]) pair.addEventListener(type, (event) => this.#markHit(event));
    count.addEventListener("change", () => this.#navigate({ k: Number(count.value) }));
    swap.addEventListener("click", () => this.#navigate({ a: this.#route.b, b: this.#route.a }));
    for (const name of SIDES) this.#listenToSide(name);
    new ResizeObserver(() => this.#renderLines()).observe(pair);
  }

  /** @param {CompareRoute} route */
  show(route) {
    this.#route = route;
    this.layout.count.value = String(route.k);
    for (const name of SIDES) {
      this.sides[name].showQuery(route[name], this.app.about);
      const requestKey = JSON.stringify(buildRankingBody(route[name]));
      if (requestKey === this.#searches[name].requestKey) continue;
      this.#searches[name].requestKey = requestKey;
      this.#search(name);
    }
    this.#render();
  }

  #navigate(/** @type {Partial<CompareRoute>} */ fields) {
    this.app.navigate({ ...this.#route, ...fields });
  }

  #listenToSide(/** @type {SideName} */ name) {
    const { form, method, clear } = this.sides[name];
    const read = (/** @type {SideName} */ each) => this.sides[each].readQuery(this.#route[each]);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#navigate({ a: read("a"), b: read("b") });
    });
    method.element.addEventListener("change", () => this.#navigate({ [name]: read(name) }));
    clear.addEventListener("click", () => {
      const { text, method: current } = this.#route[name];
      this.#navigate({ [name]: { ...EMPTY_QUERY, text, method: current } });
    });
  }

  async #search(/** @type {SideName} */ name) {
    const query = this.#route[name];
    const { list, problem } = this.sides[name];
    const { task } = this.#searches[name];
    if (!hasRanking(query)) {
      task.abort();
      list.setAttribute("aria-busy", "false");
      this.#setResponse(name, null);
      problem.replaceChildren();
      return;
    }
    list.setAttribute("aria-busy", "true");
    const { result, error, isStale } = await task.run((signal) => search(buildRankingBody(query), signal));
    if (isStale) return;
    list.setAttribute("aria-busy", "false");
    problem.replaceChildren(...(error ? [renderError(error, () => this.#search(name))] : []));
    this.#setResponse(name, result ?? null);
    if (this.#searches.a.response && this.#searches.b.response) announce(this.layout.summary.text.textContent ?? "");
  }

  #setResponse(/** @type {SideName} */ name, /** @type {SearchResponse | null} */ response) {
    this.#searches[name].response = response;
    this.#render();
  }

  #getHits() {
    const [left, right] = SIDES.map((name) => this.#searches[name].response?.hits ?? []);
    return { left, right };
  }

  #render() {
    const { a, b, k } = this.#route;
    const { left, right } = this.#getHits();
    const responses = SIDES.map((name) => this.#searches[name].response);
    const tokens = responses.flatMap((response) => sortQueryTokens(response?.query ?? []).map(({ token }) => token));
    const getHue = assignHues([...new Set(tokens)]);
    this.sides.a.showHits(left.slice(0, k), rankHits(right), responses[1] !== null, getHue);
    this.sides.b.showHits(right.slice(0, k), rankHits(left), responses[0] !== null, getHue);
    this.#renderSummary(responses.every((response) => response !== null));
    requestAnimationFrame(() => this.#renderLines());
    this.layout.hint.hidden = hasRanking(a) || hasRanking(b);
    this.#renderExamples();
  }

  /** Suggested comparisons, with a word of the index. */
  #renderExamples() {
    const { about } = this.app;
    const token = about?.suggestions?.at(-1)?.token;
    /** @type {Method[]} */
    const methods = about?.captions ? ["words", "text"] : ["bag"];
    const items = token ? methods.map((method) => createExample(token, method)) : [];
    this.layout.examples.replaceChildren(...items);
    this.layout.examples.hidden = !items.length;
  }

  #renderSummary(/** @type {boolean} */ isComplete) {
    const { k } = this.#route;
    const { left, right } = this.#getHits();
    const { element, text, overlaps } = this.layout.summary;
    element.hidden = !isComplete;
    if (!isComplete) return;
    const common = findMoves(left, right, k);
    const size = Math.min(k, Math.max(left.length, right.length));
    const movedCount = common.filter(({ from, to }) => from !== to).length;
    const overlap = `overlap@${k} is ${computeOverlap(left, right, k).toFixed(2)}`;
    const both = `${common.length} of ${pluralize(size, "image")} on both sides`;
    setText(text, `${overlap}: ${both}, ${movedCount} of them at another rank`);
    renderList(
      overlaps,
      OVERLAP_STEPS.filter((step) => step <= k).map((step) => ({ step, value: computeOverlap(left, right, step) })),
      ({ step }) => step,
      ({ step }) => createOverlapItem(step),
    );
  }

  #renderLines() {
    const { lines } = this.layout;
    const { left, right } = this.#getHits();
    const { width, height, top } = lines.getBoundingClientRect();
    setProps(lines, { viewBox: `0 0 ${Math.max(1, width)} ${Math.max(1, height)}` });
    const getMiddle = (/** @type {Element} */ list, /** @type {number} */ rank) => {
      const box = list.children[rank - 1]?.getBoundingClientRect();
      return box ? box.top + box.height / 2 - top : 0;
    };
    const paths = findMoves(left, right, this.#route.k).map(({ id, from, to }) => {
      const [start, end] = [getMiddle(this.sides.a.list, from), getMiddle(this.sides.b.list, to)];
      const d = `M0 ${start}C${width / 2} ${start} ${width / 2} ${end} ${width} ${end}`;
      return createSvgElement("path", { d, class: `line ${getDirection(from, to)}`, data: { id } });
    });
    lines.replaceChildren(...paths);
  }

  /** Marks a hit on both sides, and its line. */
  #markHit(/** @type {Event} */ { target }) {
    const row = target instanceof Element ? target.closest("li.row") : null;
    const id = row?.getAttribute("data-id");
    for (const item of this.element.querySelectorAll("[data-id]"))
      item.classList.toggle("marked", Boolean(row) && item.getAttribute("data-id") === id);
  }
}

function createExample(/** @type {string} */ token, /** @type {Method} */ method) {
  const query = { ...EMPTY_QUERY, text: token };
  const href = buildHref({ view: "compare", a: query, b: { ...query, method }, k: 0 });
  const label = h("span", {}, renderToken(token), `: ${METHODS[EMPTY_QUERY.method]} next to ${METHODS[method]}`);
  return h("li", {}, h("a", { class: "button", href }, label));
}

/** @param {number} step @returns {Component<{value: number}>} */
function createOverlapItem(step) {
  const number = h("strong", {});
  const bar = h("i", { "aria-hidden": "true" });
  return {
    element: h("li", {}, h("span", {}, `@${step}`), number, bar),
    update: ({ value }) => {
      setText(number, value.toFixed(2));
      bar.style.setProperty("--part", String(value));
    },
  };
}
