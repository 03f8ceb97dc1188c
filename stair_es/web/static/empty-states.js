// The page without hits: where to start, and what to try if nothing was found.

import { listConditions } from "./conditions.js";
import { createButton, h } from "./dom.js";
import { formatToken, pluralize, renderToken } from "./format.js";
import { clearConditions, hasRanking, resetTokens, setQueryText, setSort, toggleRequired } from "./query.js";

const EXAMPLE_COUNT = 16;
const SYNTAX_HELP = [
  ["red bird", "images with these words, or with words that the model relates to them"],
  ["+bird", "only images with the word"],
  ["-water", "only images without it"],
  ["red^2", "the word counts twice"],
];

/**
 * Before the first query: the number of images, and words that find some of them.
 * @param {App} app @param {UpdateQuery} updateQuery
 */
export function renderStartPage(app, updateQuery) {
  const count = app.about?.documents;
  const rules = SYNTAX_HELP.map(([code, meaning]) => h("div", {}, h("dt", {}, h("code", {}, code)), h("dd", {}, meaning)));
  return h(
    "div",
    { class: "landing" },
    h(
      "p",
      { class: "lead" },
      count === undefined ? "Images, " : `${pluralize(count, "image")}, `,
      h("em", {}, "each a few dozen weighted words."),
    ),
    h("details", {}, h("summary", {}, "How to search"), h("dl", { class: "grammar" }, rules)),
    renderExamples(app, EXAMPLE_COUNT, (token) => updateQuery((query) => setQueryText(query, token))),
  );
}

/**
 * A query without known words: suggestions for other queries.
 * @param {SearchResponse} response @param {App} app @param {UpdateQuery} updateQuery
 */
export function renderUnknownWords({ unknown_words }, app, updateQuery) {
  const lead = unknown_words.length === 1 ? "The model doesn't know this word." : "The model knows none of these words.";
  return [
    h("p", { class: "lead" }, lead),
    h("p", { class: "hint" }, "What it found by their spelling is below, apart. Words that find something here:"),
    renderExamples(app, EXAMPLE_COUNT / 2, (token) => updateQuery((query) => setQueryText(query, token))),
  ];
}

/**
 * A search that found nothing: why, which conditions to lift, and words that would find something.
 * @param {Query} query @param {SearchResponse} response @param {App} app @param {UpdateQuery} updateQuery
 */
export function renderNoResults(query, response, app, updateQuery) {
  const suggestions = suggestUpdates(query, response, app.about);
  const isSortedAlone = query.sort && hasRanking(query) && suggestions.length === 1;
  const items = suggestions.map(([text, update]) =>
    h("li", {}, createButton({ on: { click: () => updateQuery(update) } }, text)),
  );
  return h(
    "div",
    { class: "landing" },
    h("p", { class: "lead" }, "Nothing found."),
    h(
      "p",
      {},
      isSortedAlone ? "Only matches are sorted, and there is none. Try" : formatReason(response.required, suggestions.length),
    ),
    items.length ? h("ul", { class: "lifts" }, items) : null,
    h("h2", {}, "Words in this index"),
    renderExamples(app, EXAMPLE_COUNT / 2, (token) => updateQuery((current) => clearConditions(setQueryText(current, token)))),
  );
}

function formatReason(/** @type {string[]} */ required, /** @type {number} */ suggestionCount) {
  const quoted = required.map((token) => `“${formatToken(token)}”`);
  if (quoted.length > 1)
    return `No image has all of the required words ${quoted.slice(0, -1).join(", ")} and ${quoted.at(-1)}. Try`;
  if (!suggestionCount)
    return "No image has a word of this query. Only words in the model's vocabulary can be found. Try other words.";
  return quoted.length && suggestionCount === 1
    ? `No image has the required word ${quoted[0]}. Try`
    : "No image meets all conditions. Try";
}

/**
 * The conditions that can be removed, with their updates. A token may also be required in the text.
 * @param {Query} query @param {SearchResponse} response @param {AboutResponse | null} about @returns {[string, QueryUpdate][]}
 */
function suggestUpdates(query, { required, conditions }, about) {
  const typed = required.filter((token) => !query.require.includes(token));
  /** @type {[string, QueryUpdate][]} */
  const suggestions = [
    ...typed.map((token) =>
      buildSuggestion(`must have ${formatToken(token)}`, (current) => toggleRequired(current, token, true)),
    ),
    ...listConditions(query, about, conditions).map(({ kind, text, remove }) => buildSuggestion(`${kind} ${text}`, remove)),
  ];
  if (suggestions.length > 1)
    suggestions.push([
      "without conditions",
      (current) => clearConditions(typed.reduce((lifted, token) => toggleRequired(lifted, token, true), current)),
    ]);
  if (query.sort && hasRanking(query)) suggestions.push(["weak matches too, best first", (current) => setSort(current, "")]);
  if (query.factors.size) suggestions.push(["with the original weights", resetTokens]);
  return suggestions;
}

/** @param {string} condition @param {QueryUpdate} update @returns {[string, QueryUpdate]} */
const buildSuggestion = (condition, update) => [`without “${condition}”`, update];

/** Tokens with hits, each as a button. */
function renderExamples(/** @type {App} */ app, /** @type {number} */ count, /** @type {(token: string) => void} */ select) {
  const tokens = (app.about?.suggestions ?? []).slice(0, count);
  const items = tokens.map(({ token }) => h("li", {}, createButton({ on: { click: () => select(token) } }, renderToken(token))));
  return h("ul", { class: "examples", "aria-label": "Words to try" }, items);
}
