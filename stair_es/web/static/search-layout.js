// The layout of the search view: filters, the hits with what is around them, and the side panel.

import { createButton, createIcon, createIconButton, h, setProps } from "./dom.js";
import { FilterBar } from "./filter-bar.js";
import { createMethodSelect, createOrderSelect } from "./method-select.js";
import { setMethod } from "./query.js";
import { createWeightsPanel } from "./weights-panel.js";

/** All elements of the view. @param {UpdateQuery} updateQuery */
export function createSearchLayout(updateQuery) {
  const panel = createWeightsPanel(updateQuery);
  const filters = new FilterBar(updateQuery);
  const order = createOrderSelect(updateQuery);
  const drawer = new Drawer(panel.element);
  const status = createStatusRow(updateQuery, drawer.button);
  const lists = createLists();
  const content = [lists.start, h("div", { class: "refine" }, filters.element, order.element), status.element, ...lists.elements];
  const results = h("div", { class: "results", "aria-busy": "false" }, content);
  const title = h("h1", { id: "search-title", class: "hidden" }, "Search");
  const element = h("section", { class: "search", "aria-labelledby": "search-title" }, title, drawer.element, results);
  return { element, panel, filters, order, drawer, results, status, ...lists };
}

/** The weights of the query: a side panel, which a button opens on small screens. */
class Drawer {
  /** @param {HTMLElement} content */
  constructor(content) {
    const controls = { "aria-expanded": "false", "aria-controls": "side", title: "Words of the query (e)" };
    this.button = createButton({ class: "opener", ...controls }, createIcon("sliders"), "Weights");
    this.close = createIconButton("close", "Close words", { class: "icon shut" });
    this.element = h("aside", { id: "side", class: "side", "aria-label": "Words" }, this.close, content);
    this.button.addEventListener("click", () => this.setOpen(!this.isOpen()));
    this.close.addEventListener("click", () => this.setOpen(false));
  }

  isOpen() {
    return this.element.classList.contains("open");
  }

  /** @param {boolean} isOpen */
  setOpen(isOpen) {
    this.element.classList.toggle("open", isOpen);
    this.element.closest(".search")?.classList.toggle("opened", isOpen);
    setProps(this.button, { "aria-expanded": String(isOpen) });
    if (isOpen) this.close.focus();
    else if (this.element.contains(document.activeElement)) this.button.focus();
  }

  /** Focuses the first weight, after opening a panel that is hidden or covers the images. */
  focusContent() {
    const { display, position } = getComputedStyle(this.element);
    if (display === "none" || position === "fixed") this.setOpen(true);
    /** @type {HTMLElement | null} */ (this.element.querySelector("input[type=range]"))?.focus();
  }
}

/** The row above the hits: their number, view and ranking. */
function createStatusRow(/** @type {UpdateQuery} */ updateQuery, /** @type {HTMLElement} */ drawerButton) {
  const change = () => updateQuery((query) => setMethod(query, method.getMethod()));
  const method = createMethodSelect({ id: "method", on: { change } }, ["words-and-text", "words", "text"]);
  const ranking = h("span", { class: "by" }, h("label", { for: "method" }, "ranked by"), method.element);
  const count = h("span", {});
  const took = h("span", { class: "took" });
  const gallery = h("a", { href: "./", title: "Images alone (x)" }, "Gallery");
  const explain = h("a", { href: "./", title: "Each image with the words that it was found by (x)" }, "Explain");
  const modes = { class: "modes", role: "group", "aria-label": "View of the images" };
  const element = h(
    "div",
    { class: "status" },
    h("p", { class: "count" }, count, took),
    ranking,
    h("span", modes, gallery, explain),
    drawerButton,
  );
  return { element, method, ranking, count, took, gallery, explain };
}

/** The hits, and the notes above, between and below them. */
function createLists() {
  const problem = h("div", { class: "problem" });
  const start = h("div", { class: "start" });
  const notes = h("ul", { class: "notes", "aria-label": "Notes on the query" });
  const verdict = h("div", { class: "verdict" });
  const related = h("ul", { class: "related", "aria-label": "Related words" });
  const title = h("h2", { class: "hidden" }, "Images found");
  const strong = h("ol", { "aria-label": "Images found" });
  const divider = createButton({ class: "divider", hidden: true });
  const weak = h("ol", { "aria-label": "Weak matches" });
  const empty = h("div", { class: "empty" });
  const pageProblem = h("div", { class: "problem" });
  const more = createButton({ class: "wide", hidden: true }, "More images");
  const elements = [problem, notes, verdict, related, title, strong, divider, weak, empty, pageProblem, more];
  return { elements, problem, start, notes, verdict, related, strong, divider, weak, empty, pageProblem, more };
}
