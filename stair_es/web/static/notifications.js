// Errors with their remedies, and short notes at the edge of the page.

import { ApiError } from "./api.js";
import { buildUrl } from "./base-url.js";
import { createButton, createIconButton, escapeControls, getById, h } from "./dom.js";
import { capitalize } from "./format.js";

const NOTE_MS = 5000;
const NOTE_WITH_ACTION_MS = 20_000;
const ERROR_NOTE_MS = 12_000;

/** Whether a retry may succeed: no response, too many requests, a failure of the server or its cluster. */
const isTransient = (/** @type {Error} */ error) =>
  !(error instanceof ApiError) || error.status === 0 || error.status === 429 || error.status >= 500;

/**
 * An alert with the error's remedy, and a button for `retry` if that may help.
 * @param {Error | ApiError} error @param {() => void} [retry]
 */
export function renderError(error, retry) {
  const { remedy = "", status = 0 } = error instanceof ApiError ? error : {};
  const advice = remedy || (status === 401 ? `Open the page with its token: ${buildUrl("?token=…")}` : "");
  return h(
    "div",
    { class: "error", role: "alert" },
    h("p", { class: "what" }, capitalize(escapeControls(error.message))),
    advice ? h("p", { class: "remedy" }, escapeControls(advice)) : null,
    retry && isTransient(error) ? createButton({ on: { click: retry } }, "Try again") : null,
  );
}

/** Shows a note for a few seconds. @param {string} text @param {Node | null} action */
export function showNote(text, action = null) {
  const note = h(
    "div",
    { class: "note" },
    h("span", {}, text),
    action,
    createIconButton("close", "Dismiss", { on: { click: () => void note.remove() } }),
  );
  getById("toast").replaceChildren(note);
  setTimeout(() => note.remove(), action ? NOTE_WITH_ACTION_MS : NOTE_MS);
}

/** Shows an error for some seconds. @param {Error} error */
export function showError(error) {
  const note = renderError(error);
  getById("toast").replaceChildren(note);
  setTimeout(() => note.remove(), ERROR_NOTE_MS);
}

/**
 * Copies a text, or shows it for manual copying if that isn't allowed.
 * @param {string} text @param {string} label such as "Link"
 */
export async function copyText(text, label) {
  try {
    await navigator.clipboard.writeText(text);
    showNote(`${label} copied.`);
  } catch {
    const field = h("input", { type: "text", readonly: true, value: text, "aria-label": label });
    showNote("Copy it from here: ", field);
    field.select();
  }
}
