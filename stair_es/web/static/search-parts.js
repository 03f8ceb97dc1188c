// What the search view is made of: its places, the chips of its conditions, the bones of hits to come.

import { excluding, filtered, from, having, inColour, ranked } from "./change.js";
import { h, icon, set, visible } from "./dom.js";
import { facetPanel } from "./facets.js";
import { methodSelect } from "./methods.js";
import { queryPanel } from "./panel.js";
import { colour, short, word } from "./words.js";

/** All elements of the view; `change(make, merge)` as for the panels. */
export function layout(change) {
  const panel = queryPanel(change);
  const facets = facetPanel(change);
  const method = methodSelect({ id: "method", on: { change: () => change((query) => ranked(query, method.value)) } });
  const count = h("p", { class: "count" });
  const compare = h("a", { class: "quiet", href: "compare" }, "compare");
  const opener = h(
    "button",
    { type: "button", class: "opener", "aria-expanded": "false", "aria-controls": "side" },
    icon("sliders"),
    "Words and filters",
  );
  const shut = h("button", { type: "button", class: "icon shut", "aria-label": "Close words and filters" }, icon("close"));
  const side = h("aside", { id: "side", class: "side", "aria-label": "Words and filters" }, shut, panel, facets);
  const status = h(
    "div",
    { class: "status", hidden: true },
    count,
    h("span", { class: "by" }, h("label", { for: "method" }, "ranked by"), method),
    compare,
    opener,
  );
  const active = h("ul", { class: "chips active", "aria-label": "Active filters" });
  const problem = h("div", { class: "problem" });
  const grid = h("ol", { class: "grid found", "aria-label": "Images found" });
  const empty = h("div", { class: "empty" });
  const more = h("button", { type: "button", class: "wide", hidden: true }, "More images");
  const results = h(
    "div",
    { class: "results", "aria-busy": "false" },
    status,
    active,
    problem,
    h("h2", { class: "hidden" }, "Images found"),
    grid,
    empty,
    more,
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
    set(opener, { "aria-expanded": String(open) });
    if (open) shut.focus();
    else if (side.contains(document.activeElement)) opener.focus();
  };
  opener.addEventListener("click", () => side.sheet(!side.classList.contains("open")));
  shut.addEventListener("click", () => side.sheet(false));
  return { element, panel, facets, method, count, compare, side, status, active, problem, grid, empty, more, results };
}

/** The conditions of a query that aren't shown elsewhere. */
export function narrowing(query, answer) {
  const texts = new Set(answer?.excluded ?? []);
  return [
    ...query.has.map((name) => ({ key: `has ${name}`, kind: "has", name })),
    ...query.colours.map((name) => ({ key: `colour ${name}`, kind: "colour", name })),
    ...query.sources.map((name) => ({ key: `source ${name}`, kind: "source", name })),
    ...(query.filter ? [{ key: `filter ${query.filter}`, kind: "filter", name: query.filter }] : []),
    ...query.exclude.filter((name) => !texts.has(name)).map((name) => ({ key: `not ${name}`, kind: "not", name })),
  ];
}

/** One of them, with a button that lifts it. */
export function narrowingChip({ kind, name }, change) {
  const undo = {
    has: (now) => having(now, name),
    colour: (now) => inColour(now, name),
    source: (now) => from(now, name),
    filter: (now) => filtered(now, ""),
    not: (now) => excluding(now, name, true),
  };
  const label = { has: word(name), colour: colour(name), source: short(name), filter: visible(name), not: word(name) }[kind];
  const what = { has: "with", colour: "in", source: "from", filter: "where", not: "not" }[kind];
  return h(
    "li",
    { class: "chip" },
    h("span", { title: visible(name) }, h("span", { class: "kind" }, `${what} `), label),
    h(
      "button",
      {
        type: "button",
        class: "icon small",
        "aria-label": `Remove: ${what} ${visible(name)}`,
        on: { click: () => change(undo[kind]) },
      },
      icon("close"),
    ),
  );
}

/** A hit to come. */
export function skeleton() {
  return h(
    "li",
    { class: "hit skeleton", "aria-hidden": "true" },
    h("span", { class: "picture" }),
    h("div", { class: "head" }, h("i", {}), h("i", {})),
    h("i", {}),
    h("i", {}),
    h("i", {}),
  );
}
