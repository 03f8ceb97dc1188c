// Keyboard shortcuts, and the list of them.

import { h, icon } from "./dom.js";

const LIST = [
  ["/", "go to the search box"],
  ["← ↑ → ↓", "move between images; move an enlarged image"],
  ["Enter", "open the image; in the search box, search"],
  ["j, k", "on an image: the next and the previous one found"],
  ["z, +, -", "on an image: enlarge, zoom in, zoom out"],
  ["f", "on an image: full screen"],
  ["m", "find similar images"],
  ["x", "explain: each image with its words, or the gallery again"],
  ["e", "go to the words of the query"],
  ["c", "copy the link"],
  ["t", "switch between light and dark"],
  ["Esc", "close; on an image, go back to the search"],
  ["?", "show this list"],
];

/** `act` has a function for each shortcut; `act.arrow(key)` and the others return whether they did something. */
export function keyboard(act) {
  const dialog = help();
  document.body.append(dialog);
  const plain = {
    "/": act.find,
    "?": () => dialog.showModal(),
    j: act.next,
    k: act.previous,
    z: act.zoom,
    "+": act.zoomIn,
    "=": act.zoomIn,
    "-": act.zoomOut,
    f: act.fullScreen,
    m: act.like,
    x: act.explain,
    e: act.weights,
    c: act.copy,
    t: act.theme,
    Escape: act.leave,
  };
  addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || dialog.open) return;
    if (event.target.closest?.("input:not([type=range]), textarea, select") && event.key !== "Escape") return;
    const arrow = event.key.startsWith("Arrow") && event.target.type !== "range" && !event.shiftKey;
    const done = arrow ? act.arrow(event.key) : Object.hasOwn(plain, event.key) && plain[event.key](event) !== false;
    if (done) event.preventDefault();
  });
  return () => dialog.showModal();
}

function help() {
  const close = h("button", { type: "button", class: "icon", "aria-label": "Close" }, icon("close"));
  const dialog = h(
    "dialog",
    { class: "keys-help", "aria-labelledby": "keys-title" },
    h("div", { class: "title" }, h("h2", { id: "keys-title" }, "Keyboard shortcuts"), close),
    h(
      "dl",
      {},
      LIST.map(([key, does]) => h("div", {}, h("dt", {}, h("kbd", {}, key)), h("dd", {}, does))),
    ),
  );
  close.addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  return dialog;
}
