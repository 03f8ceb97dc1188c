// Keyboard shortcuts, and the list of them.

import { createDialog } from "./dialogs.js";
import { h } from "./dom.js";

const SHORTCUT_HELP = [
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

/**
 * Listens for shortcuts.
 * @param {Record<string, () => unknown>} actions key -> action; false if it did nothing
 * @param {(key: string) => boolean} moveByArrow the action of the arrow keys
 * @returns {() => void} shows the list
 */
export function listenForShortcuts(actions, moveByArrow) {
  const rows = SHORTCUT_HELP.map(([key, action]) => h("div", {}, h("dt", {}, h("kbd", {}, key)), h("dd", {}, action)));
  const { dialog } = createDialog("keys-help", "keys-title", "Keyboard shortcuts", h("dl", {}, rows));
  const showHelp = () => dialog.showModal();
  /** @type {Record<string, () => unknown>} */
  const actionsByKey = { ...actions, "?": showHelp };
  document.body.append(dialog);
  addEventListener("keydown", (event) => {
    if (event.isComposing) return;
    const { key, target } = event;
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || dialog.open) return;
    const isRange = target instanceof HTMLInputElement && target.type === "range";
    const isTyping = !isRange && target instanceof Element && target.closest("input:not([type=range]), textarea, select");
    if (isTyping && key !== "Escape") return;
    const isArrow = key.startsWith("Arrow") && !isRange && !event.shiftKey;
    const isDone = isArrow ? moveByArrow(key) : Object.hasOwn(actionsByKey, key) && actionsByKey[key]() !== false;
    if (isDone) event.preventDefault();
  });
  return showHelp;
}
