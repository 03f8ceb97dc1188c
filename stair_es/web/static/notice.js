// What went wrong, with its remedy; and short notes at the edge of the page.

import { h, icon, visible } from "./dom.js";

/** An alert with the error's remedy; `again`, if it helps to try again. */
export function errorNotice(error, again) {
  const more = error.status === 401 ? "Open the page with its token: /?token=…" : "";
  return h(
    "div",
    { class: "error", role: "alert" },
    h("p", { class: "what" }, sentence(visible(error.message))),
    error.remedy || more ? h("p", { class: "remedy" }, visible(error.remedy || more)) : null,
    again ? h("button", { type: "button", on: { click: again } }, "Try again") : null,
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

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1);
