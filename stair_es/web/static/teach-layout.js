// The bar in which a word is taught, and the taught words.

import { createButton, createIcon, escapeControls, h, setProps, setText } from "./dom.js";
import { pluralize, renderToken } from "./format.js";
import { EMPTY_QUERY } from "./query.js";
import { buildSearchHref } from "./routes.js";

const SHOWN_TOKEN_COUNT = 6;

/** The button that opens the bar, and the bar at the bottom of the page. */
export function createTeachLayout() {
  const opener = createButton(
    { class: "teach-opener", title: "Teach a word" },
    createIcon("plus"),
    h("span", {}, "Teach a word"),
  );
  const word = h("input", { type: "text", id: "teach-word", maxlength: 64, autocomplete: "off", autocapitalize: "none" });
  const count = h("span", { class: "count" });
  const preview = h("button", { type: "submit" }, "Preview");
  const apply = createButton({ class: "button strong" }, "Apply");
  const cancel = createButton({}, "Cancel");
  const label = h("label", { for: "teach-word" }, "These show");
  const form = h("form", { class: "lesson" }, label, word, count, h("span", { class: "steps" }, preview, apply, cancel));
  const hint = h("p", { class: "hint", role: "status" });
  const problem = h("div", { class: "problem" });
  const summary = h("summary", {});
  const words = h("ul", { "aria-label": "Taught words" });
  const taught = h("details", { hidden: true }, summary, words);
  const element = h("section", { class: "teach", hidden: true, "aria-label": "Teach a word" }, form, hint, problem, taught);
  return { opener, element, form, word, count, preview, apply, cancel, hint, problem, taught, summary, words };
}

/**
 * A taught word, which can be searched, taught from more pictures, and taken back.
 * @param {TaughtWord} word @param {TaughtActions} actions @returns {Component<TaughtWord>}
 */
export function createTaughtItem({ word, tokens, yes, no, erased, taught_at }, { teachMore, forget }) {
  const name = escapeControls(word);
  const href = buildSearchHref({ ...EMPTY_QUERY, text: word });
  const facts = [taught_at.slice(0, 10), pluralize(yes.length + no.length, "picture"), erased && `${erased} of them deleted`];
  const shown = tokens.slice(0, SHOWN_TOKEN_COUNT).flatMap(([token], index) => [index ? ", " : "", renderToken(token)]);
  const more = createButton({ class: "quiet", "aria-label": `more pictures: ${name}`, on: { click: () => teachMore(word) } });
  more.append("more pictures");
  return {
    element: h(
      "li",
      {},
      h("a", { href, class: "word", dir: "auto" }, name),
      h("span", { class: "hint" }, facts.filter(Boolean).join(", ")),
      h("span", { class: "made-of" }, shown, tokens.length > SHOWN_TOKEN_COUNT ? ", …" : null),
      h(
        "span",
        { class: "steps" },
        more,
        createForgetButton(name, () => forget(word)),
      ),
    ),
  };
}

/** A button that asks back: only the second click takes the word back. */
function createForgetButton(/** @type {string} */ name, /** @type {() => void} */ forget) {
  const button = createButton({ class: "quiet" });
  let isAsked = false;
  const ask = (/** @type {boolean} */ value) => {
    isAsked = value;
    setText(button, isAsked ? "really take back?" : "take back");
    setProps(button, { "aria-label": `${isAsked ? "really take back?" : "take back:"} ${name}` });
  };
  ask(false);
  button.addEventListener("click", ({ detail }) => {
    if (detail > 1) return; // the second click of a double click answers no question
    if (isAsked) forget();
    else ask(true);
  });
  button.addEventListener("blur", () => ask(false));
  return button;
}
