// Dialogs that a button, a click outside of them, or Esc closes.

import { createIconButton, escapeControls, h, setText } from "./dom.js";
import { pluralize } from "./format.js";

/** A hidden dialog. @param {string} className @param {string} titleId @param {string} title @param {HTMLElement} content */
export function createDialog(className, titleId, title, content) {
  const heading = h("h2", { id: titleId }, title);
  const close = createIconButton("close", "Close", { class: "icon", on: { click: () => dialog.close() } });
  const dialog = h(
    "dialog",
    { class: className, "aria-labelledby": titleId },
    h("div", { class: "title" }, heading, close),
    content,
  );
  dialog.addEventListener("click", ({ target }) => target === dialog && dialog.close());
  return { dialog, heading };
}

/** The list of an image's duplicates. @param {(id: string) => string} buildOpenHref */
export function createDuplicatesDialog(buildOpenHref) {
  const list = h("ul", {});
  const { dialog, heading } = createDialog("copies-list", "copies-title", "", list);
  list.addEventListener("click", ({ target }) => target instanceof Element && target.closest("a") && dialog.close());
  const renderFile = (/** @type {Duplicate} */ { id, name, uri }) =>
    h(
      "li",
      {},
      h("a", { href: buildOpenHref(id), dir: "auto" }, escapeControls(name)),
      h("span", { class: "hint", dir: "auto" }, escapeControls(uri ?? "")),
    );
  const show = (/** @type {Hit} */ hit) => {
    const count = hit.duplicates.length + 1;
    setText(
      heading,
      hit.document ? `${pluralize(count, "page")} of the same document` : `${pluralize(count, "file")} of the same image`,
    );
    list.replaceChildren(...[hit, ...hit.duplicates].map(renderFile));
    dialog.showModal();
  };
  return { element: dialog, show };
}
