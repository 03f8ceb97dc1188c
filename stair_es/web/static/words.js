// Formatting of words and numbers, and the colors of the words of a query.

import { h, visible } from "./dom.js";

const HUES = 8;

/** A word; the mark of a continuation (`##by`) is dimmed. */
export function word(text) {
  const shown = visible(text);
  if (shown.startsWith("##") && shown.length > 2)
    return h("bdi", { class: "word" }, h("span", { class: "piece" }, "##"), shown.slice(2));
  return h("bdi", { class: "word" }, shown.trim() ? shown : `"${shown}"`);
}

/** Whether it only continues a word, so it isn't useful alone. */
export const isPiece = (token) => token.startsWith("##");

/** A color: a patch of it before its name. */
export const color = (name) => [
  h("span", { class: "patch", data: { color: name }, "aria-hidden": "true" }),
  h("bdi", {}, visible(name)),
];

/** Word -> the number of its color, "rest" beyond the heaviest: the same in the panel and in every hit. */
export function hues(words) {
  const numbers = new Map(words.map((name, place) => [name, place < HUES ? String(place) : "rest"]));
  return (name) => numbers.get(name) ?? "rest";
}

export const weight = (value) => value.toFixed(3);
export const factor = (value) => `${Number(value.toFixed(2))}`;
export const many = (count, one, more = `${one}s`) => `${count.toLocaleString("en")} ${count === 1 ? one : more}`;

/** The last two parts of a source or a path. */
export function short(source) {
  const parts = visible(source).replace(/\/+$/, "").split("/").filter(Boolean);
  return parts.slice(-2).join("/") || visible(source);
}
