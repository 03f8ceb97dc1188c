// The query, word by word: a slider for each weight, and other actions for a word.

import { excluding, requiring, reset, withFactor } from "./change.js";
import { h, icon, keyed, say, set, visible } from "./dom.js";
import { factor, hues, many, weight, word } from "./words.js";

const SHOWN = 8;
const MOST = 3;

/** `change(make, merge)` is called with a function of the query; changes with the same `merge` are one history entry. */
export function queryPanel(change) {
  const count = h("span", { class: "count" });
  const back = h("button", { type: "button", class: "quiet", on: { click: () => change(reset) } }, "reset");
  const rows = h("ul", { class: "weights", "aria-label": "Words of the query" });
  const more = h("button", { type: "button", class: "quiet more" });
  const none = h("p", { class: "hint" });
  const without = h("ul", { class: "chips", "aria-label": "Excluded words" });
  const element = h(
    "section",
    { class: "query", "aria-labelledby": "query-title" },
    h("div", { class: "title" }, h("h2", { id: "query-title" }, "Query"), count, back),
    rows,
    none,
    more,
    without,
  );
  let all = false;
  let last = null;
  more.addEventListener("click", () => {
    all = !all;
    element.show(last);
  });

  /** Shows `{answer, query, of}`; `of` is the answered query, which may be older than the current one. */
  element.show = (shown) => {
    last = shown;
    const { answer, query, of } = shown;
    const words = inOrder(answer.query).map((item) => ({
      ...item,
      factor: query.factors.get(item.token) ?? (of.factors.has(item.token) && !item.added ? 1 : item.factor),
    }));
    const hueOf = hues(words.map((item) => item.token));
    const required = new Set(answer.required);
    const touched = (item) => item.factor !== 1 || item.added || required.has(item.token);
    const listed = all ? words : words.filter((item, place) => place < SHOWN || touched(item));
    say(count, words.length ? many(words.length, "word") : "");
    none.hidden = words.length > 0;
    say(none, answer.method === "bm25" ? "BM25 compares the text with the captions: there are no weights to adjust." : "");
    back.hidden = !(query.factors.size || query.require.length || query.exclude.length);
    const extra = [...required].filter((name) => !words.some((item) => item.token === name));
    const items = [...listed, ...extra.map((name) => ({ token: name, weight: 0, factor: 0, absent: true }))];
    keyed(
      rows,
      items,
      (item) => item.token,
      (item) => wordRow(item, change),
    );
    for (const [place, row] of [...rows.children].entries())
      row.fill(items[place], hueOf(items[place].token), required.has(items[place].token), query);
    more.hidden = words.length <= SHOWN || (!all && listed.length === words.length);
    say(more, all ? "fewer words" : `all ${words.length} words`);
    set(more, { "aria-expanded": String(all) });
    keyed(
      without,
      answer.excluded,
      (name) => name,
      (name) => excludedChip(name, change),
    );
    without.hidden = !answer.excluded.length;
  };
  return element;
}

/** The words of the query by the model's weights, then the added words, so that adding a word changes no color. */
export function inOrder(words) {
  return [...words.filter((item) => !item.added), ...words.filter((item) => item.added)];
}

function wordRow({ token: name }, change) {
  const shown = visible(name);
  const value = h("output", { class: "value" });
  const slider = h("input", { type: "range", min: 0, max: MOST, step: 0.05, "aria-label": `Weight of ${shown}` });
  const key = (text, label, act) =>
    h("button", { type: "button", class: "key", "aria-label": `${label} ${shown}`, title: label, on: { click: act } }, text);
  let now = {};
  const put = (to, merge) => change((query) => withFactor(query, name, to), merge);
  const keys = {
    mute: key("mute", "Mute", () => put(now.factor === 0 ? (now.added ? 0.5 : 1) : 0)),
    must: key("must", "Require", () => change((query) => requiring(query, name, now.must))),
    not: key("not", "Exclude", () =>
      change((query) => excluding(withFactor(query, name, now.added ? null : (query.factors.get(name) ?? null)), name, false)),
    ),
    boost: key("×2", "Boost", () => put(now.factor === 2 ? null : 2)),
    drop: key("drop", "Remove", () => change((query) => requiring(withFactor(query, name, null), name, true))),
  };
  slider.addEventListener("input", () => put(Number(slider.value), `weight of ${name}`));
  slider.addEventListener("dblclick", () => put(null));
  const row = h(
    "li",
    { class: "weight" },
    h("span", { class: "swatch", "aria-hidden": "true" }),
    h("span", { class: "label" }, word(name)),
    value,
    h(
      "div",
      { class: "control" },
      slider,
      h("span", { class: "keys", role: "group", "aria-label": `Actions for ${shown}` }, Object.values(keys)),
    ),
  );
  row.fill = (item, hue, must) => {
    now = { ...item, must };
    row.dataset.hue = hue;
    row.classList.toggle("muted", item.factor === 0 && !item.absent);
    say(value, told(item));
    slider.hidden = Boolean(item.absent);
    if (document.activeElement !== slider || Math.abs(Number(slider.value) - item.factor) > 0.6)
      slider.value = String(item.factor);
    slider.style.setProperty("--at", `${(100 * Math.min(item.factor, MOST)) / MOST}%`);
    set(slider, {
      "aria-valuetext": `${item.added ? "" : `times ${factor(item.factor)}, `}weight ${weight(item.weight * item.factor)}`,
    });
    set(keys.mute, { "aria-pressed": String(item.factor === 0) });
    set(keys.must, { "aria-pressed": String(must) });
    set(keys.boost, { "aria-pressed": String(item.factor === 2) });
    keys.mute.hidden = keys.boost.hidden = keys.must.hidden = Boolean(item.absent);
    keys.drop.hidden = !item.added && !item.absent;
    keys.not.hidden = !keys.drop.hidden;
  };
  return row;
}

function told(item) {
  if (item.absent) return "required";
  if (item.added) return `+ ${weight(item.factor)}`;
  return item.factor === 1
    ? weight(item.weight)
    : `${weight(item.weight)} × ${factor(item.factor)} = ${weight(item.weight * item.factor)}`;
}

function excludedChip(name, change) {
  const shown = visible(name);
  return h(
    "li",
    { class: "chip not" },
    h("span", {}, "not ", word(name)),
    h(
      "button",
      {
        type: "button",
        class: "icon small",
        "aria-label": `Allow ${shown} again`,
        title: "Allow again",
        on: { click: () => change((query) => excluding(query, name, true)) },
      },
      icon("close"),
    ),
  );
}
