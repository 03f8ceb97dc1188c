// The choice between the methods of ranking.

import { h, set } from "./dom.js";
import { METHODS } from "./state.js";

/** A select; `show(method, about)` selects a method, and offers BM25 if there are captions. */
export function methodSelect(props) {
  const select = h(
    "select",
    props,
    Object.entries(METHODS).map(([value, name]) => h("option", { value }, name)),
  );
  select.show = (method, about) => {
    select.value = method;
    set(select.querySelector("[value=bm25]"), { disabled: about?.captions === false && method !== "bm25" });
  };
  return select;
}
