// The choice between the methods of ranking.

import { h, setProps } from "./dom.js";
import { METHODS } from "./query.js";

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
