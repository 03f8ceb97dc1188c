// The layout of the page of an image.

import { createButton, createIcon, h, setProps, setText } from "./dom.js";
import { formatWeight, renderToken } from "./format.js";

/**
 * A token with its weight, which can be picked for a search.
 * @param {string} token @param {() => void} pick @returns {Component<ImageToken>}
 */
export function createTokenBar(token, pick) {
  const bar = h("i", {});
  const value = h("span", { class: "sum" });
  const button = createButton(
    { title: "Select it for a search", on: { click: pick } },
    renderToken(token),
    h("span", { class: "track", "aria-hidden": "true" }, bar),
    value,
  );
  return {
    element: h("li", {}, button),
    update: ({ weight, maxWeight, hue, isPicked }) => {
      setText(value, formatWeight(weight));
      bar.dataset.hue = hue;
      bar.style.width = `${(100 * weight) / maxWeight}%`;
      setProps(button, { "aria-pressed": String(isPicked) });
    },
  };
}

/** The actions for an image. */
function createActions() {
  const similar = h("a", { class: "button strong" }, createIcon("similar"), "more like this");
  const download = h("a", { class: "button", title: "The file itself, with its metadata" }, createIcon("download"), "download");
  const newTab = { title: "A JPEG of at most 1,600 pixels", target: "_blank", rel: "noopener noreferrer" };
  const original = h("a", { class: "button", ...newTab }, createIcon("open"), "open");
  const copyPath = createButton({}, createIcon("folder"), "copy path");
  const copyLink = createButton({}, createIcon("link"), "copy link");
  const element = h("div", { class: "actions" }, similar, download, original, copyPath, copyLink);
  return { element, similar, download, original, copyPath, copyLink };
}

/** The tokens of an image, with their search and order. */
function createTokenSection() {
  const summary = h("p", { class: "hint" });
  const find = h("input", { type: "search", id: "find", autocomplete: "off", spellcheck: "false" });
  const options = [h("option", { value: "weight" }, "by weight"), h("option", { value: "name" }, "by name")];
  const sort = h("select", { id: "sort" }, options);
  const matchCount = h("span", { class: "hint", role: "status" });
  const list = h("ul", { class: "all-words", "aria-label": "All words of the image" });
  const pieces = createButton({ class: "quiet" }, "show pieces");
  const clear = createButton({ class: "quiet" }, "clear selection");
  const search = h("a", { class: "button" });
  const controls = h(
    "div",
    { class: "controls" },
    h("span", {}, h("label", { for: "find" }, "find"), find),
    h("span", {}, h("label", { for: "sort" }, "order"), sort),
    matchCount,
    pieces,
    clear,
  );
  const title = h("div", { class: "title" }, h("h2", {}, "Words"), summary);
  const element = h("div", { class: "its-words" }, title, controls, list, search);
  return { element, summary, find, sort, matchCount, list, pieces, clear, search };
}

/** The most similar images, and the duplicates. */
function createNeighborSection() {
  const explain = createButton({ class: "quiet" }, "explain");
  const tiles = h("ol", { class: "gallery found strip", "aria-label": "Nearest images" });
  const cards = h("ol", { class: "grid", "aria-label": "Nearest images, explained" });
  const empty = h("p", { class: "hint", hidden: true }, "No other image shares a word with it.");
  const problem = h("div", {});
  const duplicates = h("ul", { class: "gallery found strip", "aria-label": "Copies" });
  const duplicateSection = h("div", { class: "copied", hidden: true }, h("h2", {}, "Copies of this image"), duplicates);
  const title = h("div", { class: "title" }, h("h2", {}, "Nearest images"), explain);
  const element = h("div", { class: "near" }, duplicateSection, title, problem, tiles, cards, empty);
  return { element, explain, tiles, cards, empty, problem, duplicates, duplicateSection };
}

/** All elements of the view, around the viewer of the picture. @param {HTMLElement} viewer */
export function createImageLayout(viewer) {
  const name = h("h1", { dir: "auto", tabindex: "-1" });
  const caption = h("p", { class: "caption", dir: "auto" });
  const text = h("p", { class: "caption lines", dir: "auto", role: "group", "aria-label": "Text in the image" });
  const folder = h("p", { class: "folder", dir: "auto" });
  const summary = h("p", { class: "hint" });
  const camera = h("p", { class: "hint", dir: "auto" });
  const place = h("span", { dir: "auto" });
  const near = h("a", { class: "button" }, "near here");
  const placeRow = h("p", { class: "hint place" }, place, near);
  const metadata = h("tbody", {});
  const problem = h("div", { class: "problem" });
  const actions = createActions();
  const tokens = createTokenSection();
  const neighbors = createNeighborSection();
  const region = { class: "scroll", tabindex: "0", role: "region", "aria-label": "Metadata" };
  const table = h("div", region, h("table", { class: "facts" }, metadata));
  const facts = [actions.element, camera, placeRow, folder]; // the actions first: they stay where they are in the next image
  const side = h("div", { class: "known" }, summary, ...facts, caption, text, tokens.element);
  const below = h("div", { class: "below" }, neighbors.element, h("div", {}, h("h2", {}, "Metadata"), table));
  const body = h("div", { class: "body" }, viewer, side, below);
  const back = h("p", { class: "crumb" }, h("a", { href: "./", data: { nav: "back" } }, "← back to the search"));
  const element = h("section", { class: "image", "aria-label": "Image" }, h("header", {}, back, name), problem, body);
  return {
    element,
    name,
    caption,
    text,
    folder,
    summary,
    camera,
    place,
    placeRow,
    near,
    metadata,
    problem,
    body,
    actions,
    tokens,
    neighbors,
  };
}
