// The choice between the methods of ranking.

import { h, setProps } from "./dom.js";
import { METHODS } from "./query.js";

/** A select of methods; BM25 is offered if there are captions. @param {Props} props */
export function createMethodSelect(props) {
  const options = Object.entries(METHODS).map(([value, label]) => h("option", { value }, label));
  const element = h("select", props, options);
  const update = (/** @type {Method} */ method, /** @type {AboutResponse | null} */ about) => {
    element.value = method;
    for (const option of options)
      if (option.value === "bm25") setProps(option, { disabled: about?.captions === false && method !== "bm25" });
  };
  return { element, update, getMethod: () => /** @type {Method} */ (element.value) };
}
