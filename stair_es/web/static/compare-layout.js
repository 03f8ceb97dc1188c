// Parts of the comparison: a side with its form and its ranking, a row, and the layout.

import {
  createButton,
  createIcon,
  createIconButton,
  createSvgElement,
  escapeControls,
  h,
  renderList,
  setProps,
  setText,
  setValue,
} from "./dom.js";
import { formatToken, formatWeight, pluralize } from "./format.js";
import { createThumbnail, renderScoreBar } from "./hit-card.js";
import { getHitId } from "./hit-list.js";
import { createMethodSelect } from "./method-select.js";
import { METHODS } from "./query.js";
import { getDirection } from "./rankings.js";
import { buildHref, COMPARED_COUNTS } from "./routes.js";

/** Number of hits in each ranking. */
export const RANKING_SIZE = 50;
const SHOWN_TOKEN_COUNT = 5;

/** One side: its form and its ranking. */
export class ComparedSide {
  /** @param {string} prefix of its ids @param {string} title @param {Side} otherSide */
  constructor(prefix, title, otherSide) {
    this.otherSide = otherSide;
    const typing = { autocomplete: "off", autocapitalize: "none", spellcheck: "false" };
    this.text = h("input", { type: "search", id: `${prefix}-text`, ...typing, "aria-label": `${title}: words` });
    const methods = /** @type {Method[]} */ (Object.keys(METHODS));
    this.method = createMethodSelect({ id: `${prefix}-method`, "aria-label": `${title}: ranked by` }, methods);
    this.extra = h("span", {});
    this.clear = createIconButton("close", `${title}: only the words`, { title: "Only the words" });
    this.extraChip = h("p", { class: "chip", hidden: true }, this.extra, this.clear);
    const submit = h("button", { type: "submit" }, "Rank");
    const controls = h("div", { class: "how" }, this.method.element, submit);
    const form = { class: "compared", "aria-label": `${title} query` };
    this.form = h("form", form, this.text, controls, this.extraChip);
    this.problem = h("div", { class: "problem" });
    this.list = h("ol", { class: "ranking", "aria-label": `${title} ranking` });
  }

  /** Shows a query in the form. @param {Query} query @param {AboutResponse | null} about */
  showQuery(query, about) {
    const extras = listExtras(query);
    setValue(this.text, query.text);
    this.method.update(query.method, about);
    this.extraChip.hidden = !extras.length;
    setText(this.extra, `and ${extras.join(", ")}`);
  }

  /** The query of the form. @param {Query} query @returns {Query} */
  readQuery(query) {
    return { ...query, text: this.text.value.trim(), method: this.method.getMethod() };
  }

  /**
   * Shows the first hits.
   * @param {Hit[]} hits @param {Map<string, number>} otherRanks @param {boolean} isCompared @param {GetHue} getHue
   */
  showHits(hits, otherRanks, isCompared, getHue) {
    const maxScore = Math.max(...hits.map(({ score }) => score), 1e-9);
    const items = hits.map((hit, index) => {
      return { hit, rank: index + 1, otherRank: otherRanks.get(hit.id), isCompared, maxScore, getHue };
    });
    renderList(this.list, items, getHitId, ({ hit }) => createRow(hit, this.otherSide));
  }
}

/** What the form has no fields for. */
function listExtras(/** @type {Query} */ { like, vector, factors, require, exclude, filters, filter }) {
  const conditionCount = require.length + exclude.length + filters.size + (filter ? 1 : 0);
  return [
    like && "an image of the index",
    vector.length && `${vector.length} words of an image`,
    factors.size && `${pluralize(factors.size, "weight")} changed`,
    conditionCount && pluralize(conditionCount, "condition"),
  ].filter(Boolean);
}

/** @param {Hit} hit @param {Side} otherSide @returns {Component<RankedHit>} */
function createRow({ id, name, thumbnail }, otherSide) {
  const rankText = h("span", { class: "rank" });
  const move = h("span", { class: "move" });
  const score = h("span", { class: "score" });
  const scoreBar = h("div", { class: "ribbon", "aria-hidden": "true" });
  const tokens = h("p", { class: "because" });
  const link = h("a", { class: "name", href: buildHref({ view: "image", id }), dir: "auto" }, escapeControls(name));
  const element = h(
    "li",
    { class: "row", data: { id } },
    rankText,
    h("span", { class: "picture" }, createThumbnail(thumbnail)),
    h("div", { class: "what" }, link, scoreBar, tokens),
    h("div", { class: "numbers" }, score, move),
  );
  const update = (/** @type {RankedHit} */ item) => {
    const shown = item.hit.contributions.slice(0, SHOWN_TOKEN_COUNT);
    setText(rankText, String(item.rank));
    setText(score, formatWeight(item.hit.score));
    renderScoreBar(scoreBar, item.hit, item.getHue, item.maxScore);
    setText(tokens, shown.map(({ token }) => formatToken(token)).join(", "));
    renderMove(move, item, otherSide);
  };
  return { element, update };
}

/** How the rank differs from that on the other side: on the right, what moved from the left. */
function renderMove(
  /** @type {HTMLElement} */ element,
  /** @type {RankedHit} */ { rank, otherRank, isCompared },
  /** @type {Side} */ otherSide,
) {
  element.className = `move ${isCompared ? getMoveClass(rank, otherRank, otherSide) : ""}`;
  setText(element, isCompared ? formatMove(rank, otherRank, otherSide) : "");
  const title =
    otherRank === undefined ? `not among the first ${RANKING_SIZE} on the ${otherSide}` : `rank ${otherRank} on the ${otherSide}`;
  setProps(element, { title: isCompared ? title : null });
}

function getMoveClass(/** @type {number} */ rank, /** @type {number | undefined} */ otherRank, /** @type {Side} */ otherSide) {
  if (otherRank === undefined) return "alone";
  return otherSide === "left" ? getDirection(otherRank, rank) : getDirection(rank, otherRank);
}

function formatMove(/** @type {number} */ rank, /** @type {number | undefined} */ otherRank, /** @type {Side} */ otherSide) {
  if (otherRank === undefined) return "only here";
  if (otherRank === rank) return "same";
  if (otherSide === "right") return `→ ${otherRank}`;
  return `${otherRank > rank ? "▲" : "▼"} ${Math.abs(otherRank - rank)}, was ${otherRank}`;
}

/** The layout of both sides. @param {ComparedSide} left @param {ComparedSide} right */
export function createCompareLayout(left, right) {
  const options = COMPARED_COUNTS.map((count) => h("option", { value: count }, count));
  const count = h("select", { id: "k" }, options);
  const swap = createButton({ class: "quiet" }, createIcon("swap"), "swap sides");
  const summary = createSummary();
  const lines = createSvgElement("svg", { class: "lines", "aria-hidden": "true", preserveAspectRatio: "none" });
  const lead = [
    "Enter a query on each side, or the same one with two methods: the words of STAIR with their weights, ",
    "the same words without weights, or BM25 on captions.",
  ];
  const examples = h("ul", { class: "chips", "aria-label": "Examples" });
  const hint = h("div", { class: "hint" }, h("p", { class: "lead" }, lead), examples);
  const [leftHalf, rightHalf] = [left, right].map(({ problem, list }) => h("div", { class: "half" }, problem, list));
  const pair = h("div", { class: "pair" }, leftHalf, lines, rightHalf);
  const controls = h("span", { class: "controls" }, h("label", { for: "k" }, "first"), count, swap);
  const header = h("header", {}, h("h1", { id: "compare-title" }, "Compare"), controls);
  const forms = h("div", { class: "queries" }, left.form, right.form);
  const props = { class: "compare", "aria-labelledby": "compare-title" };
  const element = h("section", props, header, forms, summary.element, hint, pair);
  return { element, count, swap, summary, lines, pair, hint, examples };
}

/** The overlap of both sides, in words and in bars, and the legend of the lines. */
function createSummary() {
  const text = h("p", { class: "sum-up" });
  const overlaps = h("ul", { class: "steps", "aria-label": "Overlap of the first hits" });
  const legend = h(
    "p",
    { class: "legend" },
    h("span", { class: "up" }, "moves up"),
    h("span", { class: "down" }, "moves down"),
    h("span", { class: "same" }, "stays"),
    h("span", { class: "alone" }, "only on one side"),
  );
  const element = h("div", { class: "sums", hidden: true }, text, overlaps, legend);
  return { element, text, overlaps };
}
