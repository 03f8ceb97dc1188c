// The choices between the methods of ranking, and between the orders of the matches.

import { escapeControls, h, setProps, setText } from "./dom.js";
import { hasRanking, METHODS, setSort } from "./query.js";

/** A select of methods; those of captions are offered if there are any. @param {Props} props @param {Method[]} methods */
export function createMethodSelect(props, methods) {
  const options = methods.map((value) => h("option", { value }, METHODS[value]));
  const element = h("select", props, options);
  const update = (/** @type {Method} */ method, /** @type {AboutResponse | null} */ about) => {
    element.value = method;
    for (const option of options)
      if (option.value === "text") setProps(option, { disabled: about?.captions === false && method !== "text" });
  };
  return { element, update, getMethod: () => /** @type {Method} */ (element.value) };
}

/** A select of the order, unless there is no field to sort by. @param {UpdateQuery} updateQuery */
export function createOrderSelect(updateQuery) {
  const initial = h("option", { value: "" });
  const change = () => updateQuery((query) => setSort(query, select.value));
  /** @type {HTMLSelectElement} */
  const select = h("select", { id: "order", on: { change } }, initial);
  const element = h("span", { class: "by" }, h("label", { for: "order" }, "sorted by"), select);
  const update = (/** @type {Query} */ query, /** @type {AboutResponse | null} */ about) => {
    const orders = about?.orders ?? [];
    element.hidden = !orders.length && !query.sort;
    const isOther = [...select.options].slice(1).some(({ value }, place) => value !== orders[place]?.sort);
    if (isOther || select.length !== orders.length + 1)
      select.replaceChildren(initial, ...orders.map(({ sort, label }) => h("option", { value: sort }, escapeControls(label))));
    setText(initial, hasRanking(query) ? "Best match" : "Newest first");
    select.value = query.sort;
  };
  return { element, update };
}
