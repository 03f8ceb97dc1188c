// What a click makes of a query. Each function returns a new query. Pure.

import { NOTHING, PAGE } from "./state.js";

/** The weight that a word gets which the query lacks. */
export const ADDED = 0.5;

const changed = (query, fields) => ({ ...query, count: PAGE, ...fields });

export function withFactor(query, word, value) {
  const factors = new Map(query.factors);
  if (value === null) factors.delete(word);
  else factors.set(word, value);
  return changed(query, { factors });
}

/** Requires a word, or no longer; a word can't be required and excluded. */
export const requiring = (query, word, now) => switched(query, word, now, "require", "exclude");

/** Excludes a word, or no longer. An added word is taken out with it. */
export const excluding = (query, word, now) => switched(query, word, now, "exclude", "require");

/** Puts a word into the list `field`, or takes it out; `opposite` never has it. */
function switched(query, word, now, field, opposite) {
  const without = (list) => list.filter((other) => other !== word);
  const text = now ? unsigned(query.text, word) : query.text;
  return changed(query, {
    text,
    [opposite]: without(query[opposite]),
    [field]: now ? without(query[field]) : [...query[field], word],
  });
}

/** Chooses a value of a field, or no longer. */
export function withValue(query, field, value, chosen) {
  const others = (query.filters.get(field)?.values ?? []).filter((other) => other !== value);
  const values = chosen ? [...others, value] : others;
  return withCondition(query, field, values.length ? { values } : null);
}

/** Chooses a range `{from, to, below}` of a field; with neither end, all of it. */
export function withRange(query, field, { from, to, below = false }) {
  return withCondition(query, field, from === null && to === null ? null : { from, to, below: below && to !== null });
}

/** A condition for a field in place of the one that it has; null lifts it. */
export function withCondition(query, field, condition) {
  const filters = new Map(query.filters);
  if (condition) filters.set(field, condition);
  else filters.delete(field);
  return changed(query, { filters });
}

export const filtered = (query, filter) => changed(query, { filter });
export const ranked = (query, method) => changed(query, { method });

/** Another text has other words: what was said of single ones doesn't hold for them. */
export const asked = (query, text) => (text === query.text ? query : { ...reset(query), text });
export const likeImage = (id) => ({ ...NOTHING, like: id });
export const withVector = (query, vector) => changed(query, { vector });

/** The words as the model weighed them. */
export const reset = (query) => changed(query, { factors: new Map(), require: [], exclude: [] });

/** Everything that narrows, taken away. */
export const widened = (query) => changed(query, { require: [], exclude: [], filters: new Map(), filter: "" });

/** The text without the sign before a word: `+dog cat` -> `dog cat`. An excluded word is left out with it. */
function unsigned(text, word) {
  const parts = text.split(/(\s+)/).map((part) => {
    const found = /^([+\-\u2212\u2013])([^^]+)/.exec(part);
    if (!found || found[2].toLowerCase() !== word.toLowerCase()) return part;
    return found[1] === "+" ? part.slice(1) : "";
  });
  return parts.join("").trim();
}
