// The popover of a filter button: values to tick, or a histogram with two ends.

import * as api from "./api.js";
import { withRange, withValue } from "./change.js";
import { endText, isWhole, rangeText, valueNodes, valueText } from "./conditions.js";
import { h, keyed, put, say, set, visible } from "./dom.js";
import { many } from "./words.js";

const SEARCHED = 10;
const DAY_MS = 86400000;

/** The content of a facet; `show({facet, query, about})` redraws it. */
export const facetBody = ({ field, kind, label }, change) =>
  kind === "terms" ? valueList(field, label, change) : rangeForm(field, kind, label, change);

/** The number of selected values of a facet, or 1 for a range. */
export function countChosen(query, field) {
  const condition = query.filters.get(field);
  return condition ? (condition.values?.length ?? 1) : 0;
}

function valueList(field, label, change) {
  const search = h("input", {
    type: "search",
    "aria-label": `Find in ${visible(label)}`,
    placeholder: "Find",
    autocomplete: "off",
  });
  const list = h("ul", { class: "values", "aria-label": visible(label) });
  const none = h("p", { class: "hint", role: "status" });
  const element = h("div", { class: "facet-body" }, search, list, none);
  const finding = api.latest();
  let shown = null;
  let found = null; // values of the whole index with the typed prefix, if the facet has only the most frequent ones

  function draw() {
    const { facet, query } = shown;
    const chosen = query.filters.get(field)?.values ?? [];
    const typed = search.value.trim().toLowerCase();
    const counts = new Map(facet.buckets.map(({ value, count }) => [String(value), count]));
    const near = (value) => !typed || valueText(field, value).toLowerCase().includes(typed);
    const values = [...new Set([...counts.keys(), ...chosen, ...(found ?? [])])].filter(near);
    const most = Math.max(1, ...counts.values());
    const items = values.map((value) => ({
      value,
      most,
      count: counts.get(value) ?? (found?.includes(value) && !chosen.includes(value) ? null : 0),
      on: chosen.includes(value),
    }));
    keyed(
      list,
      items,
      (item) => item.value,
      (item) => valueRow(field, item.value, change),
    );
    search.hidden = !facet.other && counts.size <= SEARCHED && !typed;
    say(none, values.length ? (facet.other && !typed ? "There are more values. Type the first letters of one." : "") : "No such value.");
  }

  search.addEventListener("input", async () => {
    found = null;
    draw();
    const prefix = search.value.trim();
    if (!prefix || !shown.facet.other) return finding.stop();
    const { result, stale } = await finding((signal) => api.values(field, prefix, signal));
    if (stale || !result) return;
    found = result.values.map(({ value }) => String(value));
    draw();
  });
  list.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const boxes = [...list.querySelectorAll("input")];
    const to = boxes[boxes.indexOf(document.activeElement) + step];
    if (!step) return;
    event.preventDefault();
    (to ?? (step < 0 && !search.hidden ? search : null))?.focus();
  });
  search.addEventListener("keydown", (event) => {
    if (event.key !== "ArrowDown") return;
    event.preventDefault();
    list.querySelector("input")?.focus();
  });
  element.show = (now) => {
    shown = now;
    draw();
  };
  return element;
}

function valueRow(field, value, change) {
  const box = h("input", { type: "checkbox" });
  const bar = h("i", { "aria-hidden": "true" });
  const count = h("span", { class: "n" });
  box.addEventListener("change", () => change((query) => withValue(query, field, value, box.checked)));
  const row = h(
    "li",
    {},
    h("label", { title: visible(value) }, bar, box, h("span", { class: "what" }, valueNodes(field, value)), count),
  );
  row.update = (item) => {
    box.checked = item.on;
    bar.style.width = `${(100 * (item.count ?? 0)) / item.most}%`;
    say(count, item.count === null ? "" : item.count.toLocaleString("en"));
  };
  return row;
}

/** Formatting and parsing of the values of a range. Bytes are typed in kB. */
function endsOf(field, kind) {
  const unit = field === "bytes" ? 1000 : 1;
  if (kind === "date")
    return {
      type: "date",
      typed: (end) => (end === null ? "" : String(end).slice(0, 10)),
      read: (text) => (text && text >= "1000" ? text : null), // a year that is being typed has fewer digits
    };
  return {
    type: "number",
    typed: (end) => (end === null ? "" : String(end / unit)),
    read: (text) => (text && Number.isFinite(Number(text)) ? Number(text) * unit : null),
  };
}

function rangeForm(field, kind, label, change) {
  const ends = endsOf(field, kind);
  const unit = field === "bytes" ? " (kB)" : "";
  const input = (name) =>
    h("input", {
      type: ends.type,
      step: ends.type === "number" ? "any" : null,
      "aria-label": `${visible(label)} ${name}${unit}`,
    });
  const [from, to] = [input("from"), input("to")];
  const bars = h("div", { class: "bars", role: "img" });
  const scale = h("div", { class: "scale", "aria-hidden": "true" }, h("span", {}), h("span", {}));
  const fields = h("div", { class: "ends" }, h("label", {}, `From${unit}`, from), h("label", {}, `To${unit}`, to));
  const element = h("div", { class: "facet-body" }, bars, scale, fields);
  let shown = null;
  let drawn = null;

  const choose = (range) => change((query) => withRange(query, field, range), `range of ${field}`);
  const typed = () => {
    const range = { from: ends.read(from.value), to: ends.read(to.value) };
    if (range.from !== null && range.to !== null && range.from > range.to) [range.from, range.to] = [range.to, range.from];
    choose(range);
  };
  for (const each of [from, to]) each.addEventListener("change", typed);
  const mark = choosing(bars, (first, last) => choose(rangeOf(shown.facet, first, last, isWhole(field, shown.about))));

  element.show = (now) => {
    shown = now;
    const { facet, query } = now;
    const chosen = query.filters.get(field);
    const range = chosen && !chosen.values ? chosen : { from: null, to: null };
    put(from, ends.typed(range.from));
    put(to, ends.typed(range.to));
    const days = kind === "date" && facet.min.slice(0, 10) !== facet.max.slice(0, 10);
    const bounds = [facet.min, facet.max].map((end) => (days ? end.slice(0, 10) : end));
    for (const [place, each] of [...scale.children].entries()) say(each, endText(field, bounds[place]));
    if (ends.type === "number")
      for (const [place, each] of [from, to].entries()) set(each, { placeholder: ends.typed(bounds[place]) });
    const key = JSON.stringify(facet.buckets);
    if (key !== drawn) drawBars(bars, field, label, facet);
    drawn = key;
    mark((bucket) => !chosen || (overlaps(range, bucket) && !chosen.values), facet.buckets);
  };
  return element;
}

function drawBars(bars, field, label, { buckets, min, max }) {
  const most = Math.max(1, ...buckets.map(({ count }) => count));
  bars.replaceChildren(
    ...buckets.map((bucket) => {
      const bar = h("i", {});
      bar.style.height = bucket.count ? `${Math.max(4, (100 * bucket.count) / most)}%` : "0";
      const told = rangeText(field, { from: bucket.from, to: bucket.to, below: true });
      return h("span", { title: `${told}: ${many(bucket.count, "image")}` }, bar);
    }),
  );
  const top = buckets.find(({ count }) => count === most);
  const peak = top ? `; most in ${rangeText(field, { from: top.from, to: top.to, below: true })}` : "";
  set(bars, { "aria-label": `Histogram of ${visible(label)}: ${endText(field, min)} to ${endText(field, max)}${peak}` });
}

/** Lets the user select bars with a click or a drag; returns a function that marks the bars of a range. */
function choosing(bars, choose) {
  let first = null;
  const at = ({ clientX }) => {
    const { left, width } = bars.getBoundingClientRect();
    const count = bars.children.length;
    return Math.max(0, Math.min(count - 1, Math.floor(((clientX - left) / width) * count)));
  };
  const paint = (isIn) => [...bars.children].forEach((bar, place) => bar.classList.toggle("in", isIn(place)));
  const between = (place, one, other) => place >= Math.min(one, other) && place <= Math.max(one, other);
  bars.addEventListener("pointerdown", (event) => {
    if (event.button || !bars.children.length) return;
    bars.setPointerCapture(event.pointerId);
    first = at(event);
    paint((place) => place === first);
  });
  bars.addEventListener("pointermove", (event) => {
    if (first === null) return;
    const last = at(event);
    paint((place) => between(place, first, last));
  });
  bars.addEventListener("pointerup", (event) => {
    if (first === null) return;
    const ends = [first, at(event)].sort((one, other) => one - other);
    first = null;
    choose(...ends);
  });
  bars.addEventListener("pointercancel", () => (first = null));
  return (isIn, buckets) => first === null && paint((place) => isIn(buckets[place]));
}

/** The range of the buckets `first` to `last`. Its end is included for days and whole numbers. */
function rangeOf({ buckets, kind }, first, last, whole) {
  const { from } = buckets[first];
  const { to } = buckets[last];
  if (kind === "date" && from.length === 10 && to.length === 10)
    return { from, to: new Date(Date.parse(to) - DAY_MS).toISOString().slice(0, 10) };
  return whole && Number.isInteger(to) ? { from, to: to - 1 } : { from, to, below: true };
}

function overlaps({ from, to, below }, bucket) {
  const low = from === null || bucket.to > from;
  return low && (to === null || (below ? bucket.from < to : bucket.from <= to));
}
