// The filters above the images: a button for each field, the filter query, and chips of the conditions.

import { listConditions } from "./conditions.js";
import { createButton, createIconButton, getKey, h, renderList, setText } from "./dom.js";
import { Dropdown } from "./dropdown.js";
import { countSelected, createFacetButton, createFacetSection } from "./facet-controls.js";
import { FilterQueryForm } from "./filter-query-form.js";
import { pluralize } from "./format.js";
import { clearConditions } from "./query.js";

const phone = matchMedia("(max-width: 760px)");
const getFacetKey = (/** @type {FacetItem} */ { facet }) => `${facet.field} ${facet.kind}`;

export class FilterBar {
  /** The facets of the last count, which remain while others are counted. @type {Facet[]} */
  #countedFacets = [];
  /** @type {FacetItem[]} */
  #items = [];
  #width = 0;
  #fitKey = "";
  /** The number of buttons that fit. */
  #fitCount = 0;

  /** @param {UpdateQuery} updateQuery */
  constructor(updateQuery) {
    this.updateQuery = updateQuery;
    this.buttons = h("ul", { class: "filter-buttons", "aria-label": "Filters by field" });
    this.sections = h("div", { class: "sections" });
    this.done = createButton({ class: "strong finish", on: { click: () => this.more.close() } });
    const moreContent = h("div", { class: "facet-body" }, this.sections, this.done);
    this.more = new Dropdown("More filters", moreContent, { class: "more" });
    this.form = new FilterQueryForm(updateQuery, () => this.query.close());
    this.query = new Dropdown("Query", this.form.element, { class: "query-filter" });
    this.chips = h("ul", { class: "chips active", "aria-label": "Active filters" });
    this.clear = createButton({ class: "quiet", on: { click: () => updateQuery(clearConditions) } }, "clear all");
    this.active = h("div", { class: "chosen", hidden: true }, this.chips, this.clear);
    const row = h("div", { class: "filter-row" }, this.buttons, this.more.element, this.query.element);
    row.addEventListener("keydown", (event) => moveFocus(row, event));
    this.buttons.addEventListener("toggle", () => this.#distribute(), true); // doesn't bubble
    this.element = h("section", { class: "filters", "aria-label": "Filters" }, row, this.active);
    new ResizeObserver(() => this.#handleResize()).observe(this.element);
  }

  /** @param {FilterState} state */
  update({ query, about, corpusFacets, understood, facets, total }) {
    const corpus = corpusFacets ?? [];
    this.#countedFacets = facets ?? (this.#countedFacets.length ? this.#countedFacets : corpus);
    this.#items = keepPositions(this.#countedFacets, corpus).map((facet) => ({ facet, query, about }));
    renderList(this.buttons, this.#items, getFacetKey, ({ facet }) => createFacetButton(facet, this.updateQuery));
    this.form.update({ facets: this.#countedFacets, query, about });
    this.query.update("Query", query.filter ? 1 : 0);
    setText(this.done, total === null ? "Show images" : `Show ${pluralize(total, "image")}`);
    const conditions = listConditions(query, about, understood);
    renderList(this.chips, conditions, getKey, (condition) => createConditionChip(condition, this.updateQuery));
    this.active.hidden = !conditions.length;
    this.clear.hidden = conditions.length < 2;
    this.#distribute();
  }

  #handleResize() {
    if (this.element.clientWidth === this.#width) return;
    this.#width = this.element.clientWidth;
    this.#distribute();
  }

  /**
   * Divides the fields between buttons and the list of the others. Measures only if a width has changed, and not while a field
   * is open: its button, which a choice makes wider, would move to the others.
   */
  #distribute() {
    const widths = this.#items.map(({ facet: { field, label }, query }) => [label, countSelected(query, field)]);
    const key = JSON.stringify([this.#width, phone.matches, widths]);
    const label = phone.matches ? "Filters" : "More filters";
    if (key !== this.#fitKey && !this.buttons.querySelector(":popover-open")) {
      this.more.update(label, countSelectedFields(this.#items)); // with its widest text while measuring
      this.#fitKey = key;
      this.#fitCount = this.#fitButtons();
    }
    const others = this.#items.slice(this.#fitCount).filter(({ facet }) => !facet.isDisabled);
    this.more.update(label, countSelectedFields(others));
    renderList(this.sections, others, getFacetKey, ({ facet }) => createFacetSection(facet, this.updateQuery));
  }

  /** Shows as many buttons as fit, and returns their number. */
  #fitButtons() {
    const items = /** @type {HTMLElement[]} */ ([...this.buttons.children]);
    for (const item of items) item.hidden = false;
    this.more.element.hidden = !phone.matches; // visible even before the fields are known
    const countFitting = () => {
      const edge = this.buttons.getBoundingClientRect().right + 1;
      return phone.matches ? 0 : items.filter((item) => item.getBoundingClientRect().right <= edge).length;
    };
    let count = countFitting();
    if (count < items.length) {
      this.more.element.hidden = false;
      count = countFitting();
    }
    for (const [index, item] of items.entries()) item.hidden = index >= count;
    return count;
  }
}

const countSelectedFields = (/** @type {FacetItem[]} */ items) =>
  items.filter(({ facet, query }) => countSelected(query, facet.field)).length;

/** The facets of all images, in order; those without a choice are disabled instead of removed, so that buttons don't move. */
function keepPositions(/** @type {Facet[]} */ facets, /** @type {Facet[]} */ corpusFacets) {
  const counted = new Map(facets.map((facet) => [facet.field, facet]));
  const known = corpusFacets.map((facet) => counted.get(facet.field) ?? { ...facet, isDisabled: true });
  const knownFields = new Set(corpusFacets.map(({ field }) => field));
  return [...known, ...facets.filter(({ field }) => !knownFields.has(field))];
}

function createConditionChip(/** @type {Condition} */ { kind, text, nodes, remove }, /** @type {UpdateQuery} */ updateQuery) {
  const label = h("span", { title: text }, h("span", { class: "kind" }, `${kind} `), nodes);
  const button = createIconButton("close", `Remove: ${kind} ${text}`, { on: { click: () => updateQuery(remove) } });
  return { element: h("li", { class: "chip" }, label, button) };
}

/** The arrow keys move between buttons. */
function moveFocus(/** @type {HTMLElement} */ row, /** @type {KeyboardEvent} */ event) {
  /** @type {NodeListOf<HTMLElement>} */
  const all = row.querySelectorAll("button[popovertarget]");
  const buttons = [...all].filter((button) => button.checkVisibility());
  const index = buttons.indexOf(/** @type {HTMLElement} */ (event.target));
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (index < 0 || !step) return;
  event.preventDefault();
  buttons[index + step]?.focus();
}
