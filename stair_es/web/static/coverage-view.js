// The coverage of a log: what its searches find, and which words lack something. The server's operator has measured it.

import { getCoverage } from "./api.js";
import { announce, createButton, escapeControls, h, setProps, setText } from "./dom.js";
import { formatCount, pluralize } from "./format.js";
import { renderError } from "./notifications.js";
import { EMPTY_QUERY } from "./query.js";
import { buildSearchHref } from "./routes.js";

const SHOWN_ROWS = 20;
/** @type {Record<string, string>} */
const ANSWERS = {
  match: "a match",
  only_weak: "only weak matches",
  nothing: "no hit",
  no_known_word: "no known word",
  error: "an error",
};
/** @type {Record<string, string>} */
const GAPS = {
  unknown: "Words that the model doesn't know",
  not_carried: "Words that no image carries",
  only_weak: "Other words without a match",
};

export class CoverageView {
  /** @type {CoverageReport | null} */
  #report = null;
  #isRequested = false;

  /** @param {App} app */
  constructor(app) {
    this.app = app;
    this.problem = h("div", { class: "problem" });
    this.difference = h("p", { class: "difference", hidden: true });
    this.body = h("div", {});
    this.element = h(
      "section",
      { class: "coverage" },
      h("h1", {}, "Coverage of a log"),
      this.problem,
      this.difference,
      this.body,
    );
  }

  /** After a failure it is requested again with the next step. */
  show() {
    if (!this.#isRequested) this.#load();
    this.#renderDifference();
  }

  async #load() {
    this.#isRequested = true;
    this.problem.replaceChildren();
    try {
      this.#report = await getCoverage();
      this.body.replaceChildren(...renderReport(this.#report));
      this.#renderDifference();
      announce(this.body.firstChild?.textContent ?? "");
    } catch (error) {
      this.#isRequested = false;
      this.problem.replaceChildren(renderError(/** @type {Error} */ (error), () => this.#load()));
    }
  }

  /** The alias of the page may move to an index of another model at any time. */
  #renderDifference() {
    const [report, about] = [this.#report, this.app.about];
    this.difference.hidden = !report || !about || (report.index === about.index && report.model === about.model);
    const name = about ? escapeControls(`index ${about.index}, model ${about.model}`) : "";
    setText(this.difference, `The report is of another index or model than this page, which shows ${name}.`);
  }
}

/** @param {CoverageReport} report */
function renderReport({ index, model, searches, queries, answers, words, without_match: unmatched, remarks }) {
  const counts = `${pluralize(searches, "search", "searches")}, ${formatCount(queries)} different`;
  return [
    h("p", { class: "lead" }, escapeControls(`${counts}. Index ${index}, model ${model}.`)),
    remarks.length ? h("ul", { class: "hint" }, ...remarks.map((remark) => h("li", {}, escapeControls(remark)))) : "",
    ...renderTable("What searches find", ["found", "share", "searches", "different"], Object.entries(answers), renderAnswer),
    ...Object.entries(words).flatMap(([gap, found]) => {
      const note = gap === "unknown" ? "instead" : "largest weight";
      return renderTable(GAPS[gap] ?? gap, ["word, a search with it", "share", "searches", "matched", note], found, renderWord);
    }),
    ...renderTable("Searches without a match", ["search", "searches", "found"], unmatched, renderUnmatched),
  ];
}

/**
 * A heading, a table with the first rows, and a button for the others; nothing without rows.
 * @template Row
 * @param {string} title @param {string[]} head @param {Row[]} rows @param {(row: Row) => HTMLElement} renderRow
 */
function renderTable(title, head, rows, renderRow) {
  if (!rows.length) return [];
  const columns = head.map((name) => h("th", { scope: "col" }, name));
  const first = h("tbody", {}, ...rows.slice(0, SHOWN_ROWS).map(renderRow));
  const rest = h("tbody", { hidden: true });
  const table = h("table", { "aria-label": title }, h("thead", {}, h("tr", {}, columns)), first, rest);
  const toggleRest = () => {
    if (!rest.hasChildNodes()) rest.append(...rows.slice(SHOWN_ROWS).map(renderRow));
    rest.hidden = !rest.hidden;
    setProps(more, { "aria-expanded": String(!rest.hidden) });
  };
  const label = `show all ${formatCount(rows.length)}`;
  const more = createButton({ class: "quiet", "aria-expanded": "false", on: { click: toggleRest } }, label);
  return [h("h2", {}, title), table, rows.length > SHOWN_ROWS ? more : ""];
}

/** @param {[string, CoverageReport["answers"][string]]} answer */
const renderAnswer = ([kind, { share, searches, queries }]) =>
  renderRow(ANSWERS[kind] ?? kind, renderShare(share), renderCount(searches), renderCount(queries));

/** @param {CoverageWord} found */
const renderWord = ({ word, share, searches, matched, example, ...note }) =>
  renderRow(
    [renderLink(word), example !== word && renderLink(example)],
    renderShare(share),
    renderCount(searches),
    renderCount(matched),
    h("td", {}, formatNote(note)),
  );

/** @param {UnmatchedSearch} search */
const renderUnmatched = ({ query, searches, answer, code }) =>
  renderRow(
    renderLink(query),
    renderCount(searches),
    h("td", {}, escapeControls(`${ANSWERS[answer] ?? answer}${code && `: ${code}`}`)),
  );

const renderRow = (/** @type {Child | Child[]} */ name, /** @type {HTMLElement[]} */ ...cells) =>
  h("tr", {}, h("th", { scope: "row" }, name), ...cells);

const renderCount = (/** @type {number} */ count) => h("td", { class: "n" }, formatCount(count));

function renderShare(/** @type {number} */ share) {
  const bar = h("i", { "aria-hidden": "true" });
  bar.style.setProperty("--part", String(share));
  return h("td", { class: "n" }, `${(100 * share).toFixed(1)} %`, bar);
}

/** A search, as its user saw it. @param {string} text */
const renderLink = (text) => h("a", { class: "word", href: buildSearchHref({ ...EMPTY_QUERY, text }) }, escapeControls(text));

/** @param {Pick<CoverageWord, "largest_weight" | "suggestions" | "searched_for">} note */
const formatNote = ({ largest_weight: weight, suggestions, searched_for: other }) =>
  weight?.toFixed(2) ?? escapeControls(other ?? (suggestions.length ? `${suggestions.join(" or ")}?` : ""));
