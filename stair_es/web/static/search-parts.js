// Parts of the search view: its layout, and the side panel.

import { ranked } from "./change.js";
import { h, icon, set } from "./dom.js";
import { filterBar } from "./filter-bar.js";
import { methodSelect } from "./methods.js";
import { queryPanel } from "./panel.js";

/** All elements of the view; `app` and `change(make, merge)` as for the panels. */
export function layout(app, change) {
  const panel = queryPanel(change);
  const filters = filterBar({ app, change });
  const { side, opener } = drawer(panel);
  const head = statusRow(change, opener);
  const lists = hitLists();
  const results = h(
    "div",
    { class: "results", "aria-busy": "false" },
    lists.start,
    filters.element,
    head.status,
    ...lists.elements,
  );
  const element = h(
    "section",
    { class: "search", "aria-labelledby": "search-title" },
    h("h1", { id: "search-title", class: "hidden" }, "Search"),
    side,
    results,
  );
  side.sheet = (open) => {
    side.classList.toggle("open", open);
    element.classList.toggle("opened", open);
    set(opener, { "aria-expanded": String(open) });
    if (open) side.querySelector(".shut").focus();
    else if (side.contains(document.activeElement)) opener.focus();
  };
  return { element, panel, filters, side, results, ...head, ...lists };
}

/** The words of the query: a side panel, which a button opens on small screens. */
function drawer(panel) {
  const opener = h(
    "button",
    { type: "button", class: "opener", "aria-expanded": "false", "aria-controls": "side", title: "Words of the query (e)" },
    icon("sliders"),
    "Weights",
  );
  const shut = h("button", { type: "button", class: "icon shut", "aria-label": "Close words" }, icon("close"));
  const side = h("aside", { id: "side", class: "side", "aria-label": "Words" }, shut, panel);
  opener.addEventListener("click", () => side.sheet(!side.classList.contains("open")));
  shut.addEventListener("click", () => side.sheet(false));
  return { side, opener };
}

/** The row above the hits: their number, view and ranking. */
function statusRow(change, opener) {
  const method = methodSelect({ id: "method", on: { change: () => change((query) => ranked(query, method.value)) } });
  const by = h("span", { class: "by" }, h("label", { for: "method" }, "ranked by"), method);
  const count = h("span", {});
  const took = h("span", { class: "took" });
  const compare = h("a", { class: "quiet", href: "compare" }, "compare");
  const modes = {
    gallery: h("a", { href: "./", title: "Images alone (x)" }, "Gallery"),
    explain: h("a", { href: "./", title: "Each image with the words that it was found by (x)" }, "Explain"),
  };
  const status = h(
    "div",
    { class: "status" },
    h("p", { class: "count" }, count, took),
    by,
    compare,
    h("span", { class: "modes", role: "group", "aria-label": "View of the images" }, Object.values(modes)),
    opener,
  );
  return { status, method, by, count, took, compare, modes, opener };
}

/** The hits, and the notes above, between and below them. */
function hitLists() {
  const problem = h("div", { class: "problem" });
  const start = h("div", { class: "start" });
  const notes = h("ul", { class: "notes", "aria-label": "Notes on the query" });
  const verdict = h("div", { class: "verdict" });
  const grid = h("ol", { "aria-label": "Images found" });
  const divider = h("button", { type: "button", class: "divider", hidden: true });
  const weak = h("ol", { "aria-label": "Weak matches" });
  const empty = h("div", { class: "empty" });
  const trouble = h("div", { class: "problem" });
  const more = h("button", { type: "button", class: "wide", hidden: true }, "More images");
  const elements = [
    problem,
    notes,
    verdict,
    h("h2", { class: "hidden" }, "Images found"),
    grid,
    divider,
    weak,
    empty,
    trouble,
    more,
  ];
  return { elements, problem, start, notes, verdict, grid, divider, weak, empty, trouble, more };
}
