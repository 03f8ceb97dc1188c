// Formatting of tokens and numbers, and the colors of the tokens of a query.

import { escapeControls, h } from "./dom.js";

const HUE_COUNT = 8;

/** Whether it is the token of a taught word: `#windmill`. @param {string} token */
const isTaught = (token) => /^#[^#]/.test(token);

/** A token as text. @param {string} token */
export const formatToken = (token) => (isTaught(token) ? `${escapeControls(token.slice(1))} (taught)` : escapeControls(token));

/** A token; the mark of a continuation (`##by`) or of a taught word is dimmed. @param {string} token */
export function renderToken(token) {
  const text = escapeControls(token);
  if (isTaught(token)) return h("bdi", { class: "word" }, text.slice(1), h("span", { class: "piece taught" }, " (taught)"));
  if (text.startsWith("##") && text.length > 2)
    return h("bdi", { class: "word" }, h("span", { class: "piece" }, "##"), text.slice(2));
  return h("bdi", { class: "word" }, text.trim() ? text : `"${text}"`);
}

/** Passages of a text, in which words of the query are marked. @param {Passage[]} passages */
export const renderPassages = (passages) =>
  passages.flatMap((passage, index) => [
    index ? " … " : "",
    ...passage.map(([text, isMatch]) => (isMatch ? h("mark", {}, escapeControls(text)) : escapeControls(text))),
  ]);

/** Whether it only continues a word, so it isn't useful alone. @param {string} token */
export const isPiece = (token) => token.startsWith("##");

/** The key of an item for `renderList`. @param {{token: string}} item */
export const getToken = ({ token }) => token;

/** A color: a patch of it before its name. @param {string} name */
export const renderColor = (name) => [
  h("span", { class: "patch", data: { color: name }, "aria-hidden": "true" }),
  h("bdi", {}, escapeControls(name)),
];

/** Gives each token a color, the same in the panel and in every hit. @param {string[]} tokens @returns {GetHue} */
export function assignHues(tokens) {
  const hues = new Map(tokens.map((token, index) => [token, index < HUE_COUNT ? String(index) : "rest"]));
  return (token) => hues.get(token) ?? "rest";
}

/**
 * The tokens of the query by the model's weights, then the added ones, so that adding a token changes no color.
 * @param {QueryToken[]} tokens
 */
export const sortQueryTokens = (tokens) => [...tokens.filter(({ added }) => !added), ...tokens.filter(({ added }) => added)];

/** @param {number} value */
export const formatWeight = (value) => value.toFixed(3);

/** @param {number} value */
export const formatFactor = (value) => `${Number(value.toFixed(2))}`;

/** @param {number} value */
export const formatCount = (value) => value.toLocaleString("en");

/** A number as the user writes it, with at least two digits for cents, if there are any. @param {number} value */
export const formatPrice = (value) => value.toLocaleString(undefined, { minimumFractionDigits: Number.isInteger(value) ? 0 : 2 });

/** A number and its noun: `1 image`, `2,400 images`. @param {number} count @param {string} singular @param {string} plural */
export const pluralize = (count, singular, plural = `${singular}s`) => `${formatCount(count)} ${count === 1 ? singular : plural}`;

/** @param {string} text */
export const capitalize = (text) => text.charAt(0).toUpperCase() + text.slice(1);

/** The last two parts of a source or a path. @param {string} source */
export function shortenPath(source) {
  const parts = escapeControls(source).replace(/\/+$/, "").split("/").filter(Boolean);
  return parts.slice(-2).join("/") || escapeControls(source);
}
