// The filters above the images: a button for each field, the query box, and chips of the selected values.

import { widened, withCondition } from "./change.js";
import { conditionsOf } from "./conditions.js";
import { h, icon, keyed, say, visible } from "./dom.js";
import { dropdown } from "./dropdown.js";
import { countChosen, facetBody } from "./filter-facets.js";
import { queryBox } from "./query-box.js";
import { many } from "./words.js";

const phone = matchMedia("(max-width: 760px)");

/** The bar; `app.corpus` has the facets of all images, `change(make, merge)` is called with a function of the query. */
export function filterBar({ app, change }) {
  const buttons = h("ul", { class: "filter-buttons", "aria-label": "Filters by field" });
  const sections = h("div", { class: "sections" });
  const finish = h("button", { type: "button", class: "strong finish", on: { click: () => more.close() } });
  const more = dropdown("More filters", h("div", { class: "facet-body" }, sections, finish), { class: "more" });
  const box = queryBox({ change, done: () => query.close() });
  const query = dropdown("Query", box, { class: "query-filter" });
  const chips = h("ul", { class: "chips active", "aria-label": "Active filters" });
  const clear = h("button", { type: "button", class: "quiet", on: { click: () => change(widened) } }, "clear all");
  const active = h("div", { class: "chosen", hidden: true }, chips, clear);
  const row = h("div", { class: "filter-row" }, buttons, more.element, query.element);
  const element = h("section", { class: "filters", "aria-label": "Filters" }, row, active);
  let counted = [];
  let shown = null;
  let width = 0;
  let fitted = { key: "", count: 0 };

  /** Shows as many buttons as fit, and returns their number. */
  function fit() {
    const items = [...buttons.children];
    for (const each of items) each.hidden = false;
    more.element.hidden = !phone.matches; // visible even before the fields are known
    const fitting = () => {
      const edge = buttons.getBoundingClientRect().right + 1;
      return phone.matches ? 0 : items.filter((each) => each.getBoundingClientRect().right <= edge).length;
    };
    let count = fitting();
    if (count < items.length) {
      more.element.hidden = false;
      count = fitting();
    }
    for (const [place, each] of items.entries()) each.hidden = place >= count;
    return count;
  }

  /** Divides the fields between buttons and the list of the others. Measures only if a width has changed. */
  function share() {
    const { facets, query: now } = shown;
    const key = JSON.stringify([width, phone.matches, facets.map(({ field, label }) => [label, countChosen(now, field)])]);
    const chosenOf = (some) => some.filter(({ field }) => countChosen(now, field)).length;
    const label = phone.matches ? "Filters" : "More filters";
    if (key !== fitted.key) {
      more.label(label, chosenOf(facets)); // with its widest text while measuring
      fitted = { key, count: fit() };
    }
    const hidden = facets.slice(fitted.count).filter(({ off }) => !off);
    more.label(label, chosenOf(hidden));
    keyed(
      sections,
      hidden.map((facet) => ({ ...shown, facet })),
      ({ facet }) => `${facet.field} ${facet.kind}`,
      ({ facet }) => facetSection(facet, change),
    );
  }

  /** Shows the state of a query; `facets` and `total` are null while they are counted; the previous ones remain until then. */
  function show({ facets, query: now, about, total }) {
    const all = app.corpus?.facets ?? [];
    counted = facets ?? (counted.length ? counted : all);
    shown = { facets: inPlace(counted, all), query: now, about };
    keyed(
      buttons,
      shown.facets.map((facet) => ({ ...shown, facet })),
      ({ facet }) => `${facet.field} ${facet.kind}`,
      ({ facet }) => facetButton(facet, change),
    );
    box.show({ ...shown, facets: counted });
    query.label("Query", now.filter ? 1 : 0);
    say(finish, total === null ? "Show images" : `Show ${many(total, "image")}`);
    const conditions = conditionsOf(now, about);
    keyed(
      chips,
      conditions,
      (condition) => condition.key,
      (condition) => conditionChip(condition, change),
    );
    active.hidden = !conditions.length;
    clear.hidden = conditions.length < 2;
    share();
  }

  new ResizeObserver(() => {
    if (!shown || element.clientWidth === width) return;
    width = element.clientWidth;
    share();
  }).observe(element);
  row.addEventListener("keydown", (event) => moveFocus(row, event));
  return { element, show };
}

/** The facets of all images, in order, with `off` if there is nothing to choose, so that buttons don't move. */
function inPlace(facets, all) {
  const now = new Map(facets.map((facet) => [facet.field, facet]));
  const known = all.map((facet) => now.get(facet.field) ?? { ...facet, off: true });
  const fields = new Set(all.map(({ field }) => field));
  return [...known, ...facets.filter(({ field }) => !fields.has(field))];
}

/** The button of a field with its popover, which is drawn when it opens. */
function facetButton({ field, kind, label }, change) {
  const inside = h("div", { class: "inside" });
  const opened = dropdown(label, inside, { open: () => draw() });
  const item = h("li", {}, opened.element);
  const body = facetBody({ field, kind, label }, change);
  let last = null;
  const draw = () => {
    if (!inside.firstChild) inside.append(body, lifter(field, label, change));
    body.show(last);
    inside.lastChild.hidden = !countChosen(last.query, field);
  };
  item.update = (now) => {
    last = now;
    opened.label(now.facet.label, countChosen(now.query, field), now.facet.off);
    if (opened.isOpen()) draw();
  };
  return item;
}

/** The same as an entry in the list of all fields. */
function facetSection({ field, kind, label }, change) {
  const count = h("span", { class: "n" });
  const body = facetBody({ field, kind, label }, change);
  const section = h("details", {}, h("summary", {}, h("span", {}, visible(label)), count), body, lifter(field, label, change));
  let last = null;
  const draw = () => {
    body.show(last);
    section.lastChild.hidden = !countChosen(last.query, field);
  };
  section.addEventListener("toggle", () => {
    if (!section.open) return;
    draw();
    section.scrollIntoView({ block: "nearest" }); // on a phone it may open below the last button of the list
  });
  section.update = (now) => {
    last = now;
    const chosen = countChosen(now.query, field);
    say(count, chosen ? `${chosen} chosen` : "");
    if (section.open) draw();
  };
  return section;
}

const lifter = (field, label, change) =>
  h(
    "button",
    { type: "button", class: "quiet lift", on: { click: () => change((query) => withCondition(query, field, null)) } },
    `Any ${visible(label).toLowerCase()}`,
  );

function conditionChip({ kind, text, shown, lift }, change) {
  return h(
    "li",
    { class: "chip" },
    h("span", { title: text }, h("span", { class: "kind" }, `${kind} `), shown),
    h(
      "button",
      { type: "button", class: "icon small", "aria-label": `Remove: ${kind} ${text}`, on: { click: () => change(lift) } },
      icon("close"),
    ),
  );
}

/** The arrow keys move between buttons; the down key opens one. */
function moveFocus(row, event) {
  const buttons = [...row.querySelectorAll("button[popovertarget]")].filter((each) => each.checkVisibility());
  const place = buttons.indexOf(event.target);
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (place < 0 || !(step || event.key === "ArrowDown")) return;
  event.preventDefault();
  if (step) buttons[place + step]?.focus();
  else event.target.click();
}
