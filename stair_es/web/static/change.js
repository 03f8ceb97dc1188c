// Changes of a query by clicks. Each function returns a new query. Pure.

import { NOTHING, PAGE } from "./state.js";

/** The initial weight of a word that isn't in the query. */
export const ADDED = 0.5;

const changed = (query, fields) => ({ ...query, count: PAGE, ...fields });

export function withFactor(query, word, value) {
  const factors = new Map(query.factors);
  if (value === null) factors.delete(word);
  else factors.set(word, value);
  return changed(query, { factors });
}

/** Toggles whether a word is required. A word can't be required and excluded. */
export const requiring = (query, word, now) => switched(query, word, now, "require", "exclude");

/** Toggles whether a word is excluded. An added word is removed. */
export const excluding = (query, word, now) => switched(query, word, now, "exclude", "require");

/** Toggles a word in the list `field`, and removes it from `opposite`. */
function switched(query, word, now, field, opposite) {
  const without = (list) => list.filter((other) => other !== word);
  const text = now ? unsigned(query.text, word) : query.text;
  return changed(query, {
    text,
    [opposite]: without(query[opposite]),
    [field]: now ? without(query[field]) : [...query[field], word],
  });
}

/** Toggles a value of a field. */
export function withValue(query, field, value, chosen) {
  const others = (query.filters.get(field)?.values ?? []).filter((other) => other !== value);
  const values = chosen ? [...others, value] : others;
  return withCondition(query, field, values.length ? { values } : null);
}

/** Selects a range `{from, to, below}` of a field. Without ends, the range is removed. */
export function withRange(query, field, { from, to, below = false }) {
  return withCondition(query, field, from === null && to === null ? null : { from, to, below: below && to !== null });
}

/** Replaces the condition of a field; null removes it. */
export function withCondition(query, field, condition) {
  const filters = new Map(query.filters);
  if (condition) filters.set(field, condition);
  else filters.delete(field);
  return changed(query, { filters });
}

export const filtered = (query, filter) => changed(query, { filter });
export const ranked = (query, method) => changed(query, { method });

/** Replaces the text. Changes of single words are reset, because another text has other words. */
export const asked = (query, text) => (text === query.text ? query : { ...reset(query), text });
export const likeImage = (id) => ({ ...NOTHING, like: id });
export const withVector = (query, vector) => changed(query, { vector });

/** Restores the weights of the model. */
export const reset = (query) => changed(query, { factors: new Map(), require: [], exclude: [] });

/** Removes all conditions. */
export const widened = (query) => changed(query, { require: [], exclude: [], filters: new Map(), filter: "" });

/** The text without the sign before a word: `+dog cat` -> `dog cat`. An excluded word is removed. */
function unsigned(text, word) {
  const parts = text.split(/(\s+)/).map((part) => {
    const found = /^([+\-\u2212\u2013])([^^]+)/.exec(part);
    if (!found || found[2].toLowerCase() !== word.toLowerCase()) return part;
    return found[1] === "+" ? part.slice(1) : "";
  });
  return parts.join("").trim();
}
