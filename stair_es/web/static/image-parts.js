// What the page of an image is made of: a bar for a word, and the places.

import { h, icon, say, set } from "./dom.js";
import { weight, word } from "./words.js";

/** A word with its weight, which can be chosen for a search. */
export function wordBar(name, pick) {
  const bar = h("i", {});
  const value = h("span", { class: "sum" });
  const button = h(
    "button",
    { type: "button", title: "Select it for a search", on: { click: () => pick(name) } },
    word(name),
    h("span", { class: "track", "aria-hidden": "true" }, bar),
    value,
  );
  const item = h("li", {}, button);
  item.fill = (now, most, hue, on) => {
    say(value, weight(now));
    bar.dataset.hue = hue;
    bar.style.width = `${(100 * now) / most}%`;
    set(button, { "aria-pressed": String(on) });
  };
  return item;
}

/** All elements of the view. */
export function layout() {
  const name = h("h1", { dir: "auto" });
  const caption = h("p", { class: "caption", dir: "auto" });
  const figure = h("figure", {});
  const original = h("a", { class: "button", target: "_blank", rel: "noopener noreferrer" }, "open full size");
  const like = h("a", { class: "button" }, icon("like"), "more like this");
  const withWords = h("a", { class: "button strong" });
  const facts = h("tbody", {});
  const sum = h("p", { class: "hint" });
  const find = h("input", { type: "search", id: "find", autocomplete: "off", spellcheck: "false" });
  const sort = h(
    "select",
    { id: "sort" },
    h("option", { value: "weight" }, "by weight"),
    h("option", { value: "name" }, "by name"),
  );
  const matches = h("span", { class: "hint", role: "status" });
  const words = h("ul", { class: "all-words", "aria-label": "All words of the image" });
  const clear = h("button", { type: "button", class: "quiet" }, "clear selection");
  const near = h("ol", { class: "grid", "aria-label": "Nearest images" });
  const none = h("p", { class: "hint", hidden: true }, "No other image shares a word with it.");
  const trouble = h("div", {});
  const problem = h("div", { class: "problem" });
  const body = h(
    "div",
    { class: "body" },
    h(
      "div",
      { class: "left" },
      figure,
      h("div", { class: "actions" }, like, original),
      h("h2", {}, "Metadata"),
      h(
        "div",
        { class: "scroll", tabindex: "0", role: "region", "aria-label": "Metadata" },
        h("table", { class: "facts" }, facts),
      ),
    ),
    h(
      "div",
      { class: "right" },
      h("div", { class: "title" }, h("h2", {}, "Words"), sum),
      h(
        "div",
        { class: "controls" },
        h("span", {}, h("label", { for: "find" }, "find"), find),
        h("span", {}, h("label", { for: "sort" }, "order"), sort),
        matches,
        clear,
        withWords,
      ),
      words,
    ),
    h("div", { class: "below" }, h("h2", {}, "Nearest images"), trouble, near, none),
  );
  const element = h(
    "section",
    { class: "image", "aria-label": "Image" },
    h("p", { class: "crumb" }, h("a", { href: "./", data: { nav: "back" } }, "← back to the search")),
    h("header", {}, name, caption),
    problem,
    body,
  );
  return {
    element,
    name,
    caption,
    figure,
    original,
    like,
    withWords,
    facts,
    sum,
    find,
    sort,
    matches,
    words,
    clear,
    near,
    none,
    trouble,
    problem,
    body,
  };
}
