// Errors with their remedies, and short notes at the edge of the page.

import { h, icon, visible } from "./dom.js";
import { urlOf } from "./root.js";

/** Statuses after which a retry may succeed: no response, too many requests, a failure of the server or its cluster. */
const isPassing = (status) => status === undefined || status === 0 || status === 429 || status >= 500;

/** An alert with the error's remedy, and a button for `again` if a retry may help. */
export function errorNotice(error, again) {
  const more = error.status === 401 ? `Open the page with its token: ${urlOf("?token=…")}` : "";
  return h(
    "div",
    { class: "error", role: "alert" },
    h("p", { class: "what" }, sentence(visible(error.message))),
    error.remedy || more ? h("p", { class: "remedy" }, visible(error.remedy || more)) : null,
    again && isPassing(error.status) ? h("button", { type: "button", on: { click: again } }, "Try again") : null,
  );
}

/** Shows a note for a few seconds. */
export function toast(text, { action = null } = {}) {
  const place = document.getElementById("toast");
  const note = h(
    "div",
    { class: "note" },
    h("span", {}, text),
    action,
    h(
      "button",
      { type: "button", class: "icon small", "aria-label": "Dismiss", on: { click: () => note.remove() } },
      icon("close"),
    ),
  );
  place.replaceChildren(note);
  setTimeout(() => note.remove(), action ? 20000 : 5000);
}

/** Copies a text, or shows it for manual copying if that isn't allowed. `what` is its label, such as "Link". */
export async function copyText(text, what) {
  try {
    await navigator.clipboard.writeText(text);
    toast(`${what} copied.`);
  } catch {
    const field = h("input", { type: "text", readonly: true, value: text, "aria-label": what });
    toast("Copy it from here: ", { action: field });
    field.select();
  }
}

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1);
