// The popover of a field of texts: values to tick, and a box to find one.

import { LatestTask, listValues } from "./api.js";
import { formatValue, renderValue } from "./conditions.js";
import { escapeControls, h, renderList, setText } from "./dom.js";
import { formatCount } from "./format.js";
import { selectValue } from "./query.js";

/** With more values than this, the box is shown. */
const MAX_VALUES_WITHOUT_SEARCH = 10;

export class ValueList {
  #task = new LatestTask();
  /** @type {FacetItem<TermsFacet> | null} */
  #item = null;
  /** Values of the whole index with the typed prefix, if the facet has only the most frequent ones. @type {string[]} */
  #foundValues = [];

  /** @param {TermsFacet} facet @param {UpdateQuery} updateQuery */
  constructor({ field, label }, updateQuery) {
    const name = escapeControls(label);
    this.field = field;
    this.updateQuery = updateQuery;
    const props = { type: "search", "aria-label": `Find in ${name}`, placeholder: "Find", autocomplete: "off" };
    this.search = h("input", { ...props, on: { input: () => this.#findValues() } });
    this.list = h("ul", { class: "values", "aria-label": name });
    this.hint = h("p", { class: "hint", role: "status" });
    this.element = h("div", { class: "facet-body" }, this.search, this.list, this.hint);
    this.element.addEventListener("keydown", (event) => this.#moveFocus(event));
  }

  /** @param {FacetItem<TermsFacet>} item */
  update(item) {
    this.#item = item;
    this.#render();
  }

  #render() {
    if (!this.#item) return;
    const { facet } = this.#item;
    const prefix = this.search.value.trim().toLowerCase();
    const items = this.#listItems(this.#item, prefix);
    renderList(
      this.list,
      items,
      ({ value }) => value,
      ({ value }) => this.#createRow(value),
    );
    const hasMore = facet.other && !prefix;
    this.search.hidden = !facet.other && facet.buckets.length <= MAX_VALUES_WITHOUT_SEARCH && !prefix;
    const hint = hasMore ? "There are more values. Type the first letters of one." : "";
    setText(this.hint, items.length ? hint : "No such value.");
  }

  /** @returns {ValueItem[]} */
  #listItems(/** @type {FacetItem<TermsFacet>} */ { facet, query }, /** @type {string} */ text) {
    const selected = query.filters.get(this.field)?.values ?? [];
    const counts = new Map(facet.buckets.map(({ value, count }) => [String(value), count]));
    const values = new Set([...counts.keys(), ...selected, ...this.#foundValues]);
    const maxCount = Math.max(1, ...counts.values());
    const matches = [...values].filter((value) => formatValue(this.field, value).toLowerCase().includes(text));
    return matches.map((value) => {
      const isSelected = selected.includes(value);
      const isUncounted = this.#foundValues.includes(value) && !isSelected;
      return { value, maxCount, count: counts.get(value) ?? (isUncounted ? null : 0), isSelected };
    });
  }

  async #findValues() {
    this.#foundValues = [];
    this.#render();
    const prefix = this.search.value.trim();
    if (!prefix || !this.#item?.facet.other) return this.#task.abort();
    const { result } = await this.#task.run((signal) => listValues(this.field, prefix, signal));
    if (!result) return;
    this.#foundValues = result.values.map(({ value }) => String(value));
    this.#render();
  }

  /** @returns {Component<ValueItem>} */
  #createRow(/** @type {string} */ value) {
    const select = () => void this.updateQuery((query) => selectValue(query, this.field, value, checkbox.checked));
    const checkbox = h("input", { type: "checkbox", on: { change: select } });
    const bar = h("i", { "aria-hidden": "true" });
    const countText = h("span", { class: "n" });
    const text = h("span", { class: "what" }, renderValue(this.field, value));
    return {
      element: h("li", {}, h("label", { title: escapeControls(value) }, bar, checkbox, text, countText)),
      update: ({ count, maxCount, isSelected }) => {
        checkbox.checked = isSelected;
        bar.style.width = `${(100 * (count ?? 0)) / maxCount}%`;
        setText(countText, count === null ? "" : formatCount(count));
      },
    };
  }

  /** The arrow keys move between the box and the values. */
  #moveFocus(/** @type {KeyboardEvent} */ event) {
    if (event.isComposing) return;
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step || (event.target === this.search && step < 0)) return;
    event.preventDefault();
    const fields = [...(this.search.hidden ? [] : [this.search]), ...this.list.querySelectorAll("input")];
    fields[fields.indexOf(/** @type {HTMLInputElement} */ (document.activeElement)) + step]?.focus();
  }
}
