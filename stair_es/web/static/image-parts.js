// Parts of the page of an image: a bar for a word, and the layout.

import { h, icon, say, set } from "./dom.js";
import { weight, word } from "./words.js";

/** A word with its weight, which can be selected for a search. */
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

/** The actions for an image. */
function actions() {
  const like = h("a", { class: "button strong" }, icon("like"), "more like this");
  const download = h("a", { class: "button", title: "The file itself, with its metadata" }, icon("download"), "download");
  const original = h("a", { class: "button", title: "A JPEG of at most 1,600 pixels", target: "_blank", rel: "noopener noreferrer" }, icon("open"), "open");
  const path = h("button", { type: "button" }, icon("path"), "copy path");
  const link = h("button", { type: "button" }, icon("link"), "copy link");
  const element = h("div", { class: "actions" }, like, download, original, path, link);
  return { element, like, download, original, path, link };
}

/** The words of an image, with their filter and order. */
function wordsPart() {
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
  const pieces = h("button", { type: "button", class: "quiet" }, "show pieces");
  const clear = h("button", { type: "button", class: "quiet" }, "clear selection");
  const withWords = h("a", { class: "button" });
  const element = h(
    "div",
    { class: "its-words" },
    h("div", { class: "title" }, h("h2", {}, "Words"), sum),
    h(
      "div",
      { class: "controls" },
      h("span", {}, h("label", { for: "find" }, "find"), find),
      h("span", {}, h("label", { for: "sort" }, "order"), sort),
      matches,
      pieces,
      clear,
    ),
    words,
    withWords,
  );
  return { element, sum, find, sort, matches, words, pieces, clear, withWords };
}

/** The most similar images, and the copies. */
function nearPart() {
  const explain = h("button", { type: "button", class: "quiet" }, "explain");
  const strip = h("ol", { class: "gallery found strip", "aria-label": "Nearest images" });
  const cards = h("ol", { class: "grid", "aria-label": "Nearest images, explained" });
  const none = h("p", { class: "hint", hidden: true }, "No other image shares a word with it.");
  const trouble = h("div", {});
  const copies = h("ul", { class: "gallery found strip", "aria-label": "Copies" });
  const copied = h("div", { class: "copied", hidden: true }, h("h2", {}, "Copies of this image"), copies);
  const element = h(
    "div",
    { class: "near" },
    copied,
    h("div", { class: "title" }, h("h2", {}, "Nearest images"), explain),
    trouble,
    strip,
    cards,
    none,
  );
  return { element, explain, strip, cards, none, trouble, copies, copied };
}

/** All elements of the view, around the stage. */
export function layout(stage) {
  const name = h("h1", { dir: "auto", tabindex: "-1" });
  const caption = h("p", { class: "caption", dir: "auto" });
  const folder = h("p", { class: "folder", dir: "auto" });
  const summed = h("p", { class: "hint" });
  const facts = h("tbody", {});
  const problem = h("div", { class: "problem" });
  const act = actions();
  const words = wordsPart();
  const near = nearPart();
  const metadata = h(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": "Metadata" },
    h("table", { class: "facts" }, facts),
  );
  const side = h("div", { class: "known" }, summed, act.element, folder, caption, words.element);
  const below = h("div", { class: "below" }, near.element, h("div", {}, h("h2", {}, "Metadata"), metadata));
  const body = h("div", { class: "body" }, stage, side, below);
  const element = h(
    "section",
    { class: "image", "aria-label": "Image" },
    h("header", {}, h("p", { class: "crumb" }, h("a", { href: "./", data: { nav: "back" } }, "← back to the search")), name),
    problem,
    body,
  );
  return { element, name, caption, folder, summed, facts, problem, body, act, words, near };
}
