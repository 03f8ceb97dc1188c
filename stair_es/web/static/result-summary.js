// The summary of a response: the number of matches, unknown words, and whether any match is good.

import { createButton, escapeControls, h } from "./dom.js";
import { capitalize, formatWeight, pluralize, renderToken } from "./format.js";
import { addWord, hasConditions, hasRanking, setQueryText } from "./query.js";
import { buildSearchHref } from "./routes.js";

/** The number of matches. @param {Query} query @param {HitCounts} counts */
export function formatMatchCount(query, { strong, total, hasMore }) {
  if (!hasRanking(query)) {
    const count = total !== null && (hasConditions(query) || query.sort) ? pluralize(total, "image") : "";
    return capitalize([count, query.sort ? "" : "newest first"].filter(Boolean).join(", "));
  }
  if (total !== null) return pluralize(total, "match", "matches");
  return `${hasMore ? "more than " : ""}${pluralize(strong, "match", "matches")}`;
}

/** A remark about a word that pictures here don't have, though the model knows it. */
const MISSING_WORD = /^no photograph can carry '(.+?)'|^'(.+?)' is a word of this model, but no image/;
/** A query whose word is the missing one, though the remark may name another form of it. */
const SINGLE_WORD = /^\p{L}[\p{L}\p{N}'’-]*$/u;

/**
 * Notes above the hits: unknown words with similar ones, and remarks about the interpretation of the query.
 * @param {Query} query @param {SearchResponse} response @param {Teach | null} teach
 */
export function renderNotes(query, { unknown_words, remarks }, teach) {
  const unknown = (unknown_words ?? []).map(({ word, suggestions, searched_for }) =>
    h(
      "li",
      {},
      `“${escapeControls(word)}”${searched_for ? `: searched for ${searched_for}` : " is not a word of this model"}.`,
      suggestions.length ? " Did you mean " : null,
      suggestions.flatMap((other, index) => [
        index ? (index === suggestions.length - 1 ? " or " : ", ") : null,
        renderReplacement(query, word, other),
      ]),
      suggestions.length ? "?" : null,
      renderOffer(word, teach),
    ),
  );
  const others = (remarks ?? []).map((remark) => {
    const missing = MISSING_WORD.exec(remark);
    const word = missing && (SINGLE_WORD.exec(query.text.trim())?.[0] ?? missing[1] ?? missing[2]);
    return h("li", {}, capitalize(escapeControls(remark)), word && renderOffer(word, teach));
  });
  return [...unknown, ...others];
}

/** A button to teach a word, if that is allowed. */
function renderOffer(/** @type {string} */ word, /** @type {Teach | null} */ teach) {
  const label = `Teach it: ${escapeControls(word)}`;
  return teach && createButton({ class: "quiet", "aria-label": label, on: { click: () => teach(word) } }, "Teach it");
}

/** The text instead of matches, if all hits are weak. @param {SearchResponse} response @param {Hit} bestHit */
export function renderNoGoodMatch({ weak_below }, bestHit) {
  const minimum = `a match has at least ${formatWeight(weak_below ?? 0)} or each word of the query`;
  const scores = weak_below ? `: the best score is ${formatWeight(bestHit.score)}, and ${minimum}` : "";
  return [
    h("p", { class: "lead" }, "No good match."),
    h("p", {}, `No image has enough of the query's words${scores}. The nearest images are the weak matches below.`),
  ];
}

/** A word that matches share. @param {string} token @param {UpdateQuery} updateQuery @returns {Component<{token: string}>} */
export function createRelatedWord(token, updateQuery) {
  const click = () => updateQuery((query) => addWord(query, token));
  return { element: h("li", {}, createButton({ title: "Add to the query", on: { click } }, renderToken(token))) };
}

/** A link to the same query with another word in place of an unknown one. */
function renderReplacement(/** @type {Query} */ query, /** @type {string} */ word, /** @type {string} */ other) {
  const escaped = word.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&");
  const wholeWord = new RegExp(`(?<![\\p{L}\\p{N}])${escaped}(?![\\p{L}\\p{N}])`, "giu");
  const text = query.text.replace(wholeWord, () => other);
  return h("a", { href: buildSearchHref(setQueryText(query, text)) }, escapeControls(other));
}
