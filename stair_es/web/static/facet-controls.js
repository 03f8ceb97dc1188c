// A field to filter by: a button with a popover, or an entry in the list of the other fields.

import { createButton, escapeControls, h, setText } from "./dom.js";
import { Dropdown } from "./dropdown.js";
import { setFilter } from "./query.js";
import { createRangeForm } from "./range-form.js";
import { ValueList } from "./value-list.js";

/** The number of selected values of a field, or 1 for a range. @param {Query} query @param {string} field */
export function countSelected(query, field) {
  const filter = query.filters.get(field);
  return filter ? (filter.values?.length ?? 1) : 0;
}

/**
 * The button of a field with its popover, which is rendered when it opens.
 * @param {Facet} facet @param {UpdateQuery} updateQuery @returns {Component<FacetItem>}
 */
export function createFacetButton(facet, updateQuery) {
  /** @type {FacetItem} */
  let current;
  /** @type {ReturnType<typeof createFacetBody> | null} */
  let body = null;
  const content = h("div", { class: "inside" });
  const render = () => {
    if (!body) {
      body = createFacetBody(facet, updateQuery);
      content.append(...body.elements);
    }
    body.update(current);
  };
  const dropdown = new Dropdown(facet.label, content, { onOpen: render });
  const update = (/** @type {FacetItem} */ item) => {
    current = item;
    dropdown.update(item.facet.label, countSelected(item.query, facet.field), item.facet.isDisabled);
    if (dropdown.isOpen()) render();
  };
  return { element: h("li", {}, dropdown.element), update };
}

/**
 * The same as an entry in the list of the other fields.
 * @param {Facet} facet @param {UpdateQuery} updateQuery @returns {Component<FacetItem>}
 */
export function createFacetSection(facet, updateQuery) {
  /** @type {FacetItem} */
  let current;
  const body = createFacetBody(facet, updateQuery);
  const count = h("span", { class: "n" });
  const summary = h("summary", {}, h("span", {}, escapeControls(facet.label)), count);
  const element = h("details", {}, summary, body.elements);
  element.addEventListener("toggle", () => {
    if (!element.open) return;
    body.update(current);
    element.scrollIntoView({ block: "nearest" }); // on a phone it may open below the last button of the list
  });
  const update = (/** @type {FacetItem} */ item) => {
    const selectedCount = countSelected(item.query, facet.field);
    current = item;
    setText(count, selectedCount ? `${selectedCount} chosen` : "");
    if (element.open) body.update(item);
  };
  return { element, update };
}

/** The values or the range of a field, and a button that removes its filter. */
function createFacetBody(/** @type {Facet} */ facet, /** @type {UpdateQuery} */ updateQuery) {
  const form = facet.kind === "terms" ? new ValueList(facet, updateQuery) : createRangeForm(facet, updateQuery);
  const clearFilter = () => updateQuery((query) => setFilter(query, facet.field, null));
  const props = { class: "quiet lift", on: { click: clearFilter } };
  const clear = createButton(props, `Any ${escapeControls(facet.label).toLowerCase()}`);
  const update = (/** @type {any} */ item) => {
    form.update(item);
    clear.hidden = !countSelected(item.query, facet.field);
  };
  return { elements: [form.element, clear], update };
}
