// Queries: the empty one, updates by the user, and the body for the API. Queries are immutable: each update returns a new one.

/** Number of images in a page of hits. */
export const PAGE_SIZE = 60;

/** The initial weight of a token that isn't in the query. */
export const ADDED_WEIGHT = 0.5;

/** @type {Record<Method, string>} */
export const METHODS = { "words-and-text": "words and text", words: "words", text: "text", bag: "bag of words" };

/** Fields of which an image must have all selected values; for other fields, any of them. */
export const MATCH_ALL_FIELDS = new Set(["top_tokens", "colors"]);

/** @type {Readonly<Query>} */
export const EMPTY_QUERY = Object.freeze({
  text: "",
  like: "",
  vector: [],
  factors: new Map(),
  require: [],
  exclude: [],
  filters: new Map(),
  filter: "",
  method: "words-and-text",
  sort: "",
  count: PAGE_SIZE,
  explain: false,
});

/** The parts of a text that say where images must be. */
const PLACES = /(?<!\S)near:(?:"[^"]*"\S*|\S*)/gi;

const listPlaces = (/** @type {string} */ text) => text.match(PLACES) ?? [];

/** Whether there is something to rank by. @param {Query} query */
export const hasRanking = (query) =>
  Boolean(
    query.text.replace(PLACES, "").trim() || query.like || query.vector.length || [...query.factors.values()].some(Boolean),
  );

/** Whether something narrows the result. @param {Query} query */
export const hasConditions = (query) =>
  Boolean(
    query.filters.size || query.require.length || query.exclude.length || query.filter.trim() || listPlaces(query.text).length,
  );

/** Whether it shows the start page. @param {Query} query */
export const isEmptyQuery = (query) => !hasRanking(query) && !hasConditions(query);

/** The body of the search request. @param {Query} query @param {number} k */
export function buildSearchBody(query, k = query.count) {
  /** @type {Record<string, unknown>} */
  const body = { k, method: query.method };
  if (query.text.trim()) body.text = query.text.trim();
  if (query.like) body.similar_to = query.like;
  if (query.vector.length) body.vector = Object.fromEntries(query.vector);
  if (query.factors.size) body.factors = Object.fromEntries(query.factors);
  if (query.require.length) body.require = query.require;
  if (query.exclude.length) body.exclude = query.exclude;
  if (query.filters.size) body.filters = [...query.filters].map(buildFilterBody);
  if (query.filter.trim()) body.filter = query.filter.trim();
  if (query.sort) body.sort = query.sort;
  return body;
}

function buildFilterBody(/** @type {[string, FieldFilter]} */ [field, filter]) {
  if (filter.values) return { field, [MATCH_ALL_FIELDS.has(field) ? "all" : "any"]: filter.values };
  const { from, to, below } = filter;
  return { field, ...(from === null ? {} : { gte: from }), ...(to === null ? {} : { [below ? "lt" : "lte"]: to }) };
}

/** A key that is the same for queries with the same hits. @param {Query} query */
export const getQueryKey = (query) => JSON.stringify(buildSearchBody(query, 1));

/**
 * Whether queries differ only in weights or filters: then hits of the first are shown until the second's arrive.
 * @param {Query} one @param {Query} other
 */
export const isVariant = (one, other) =>
  one.text === other.text && one.like === other.like && JSON.stringify(one.vector) === JSON.stringify(other.vector);

/** @param {Query} query @param {Partial<Query>} fields @returns {Query} */
const updateQuery = (query, fields) => ({ ...query, count: PAGE_SIZE, ...fields });

/**
 * Sets the factor of a token; null restores the model's weight.
 * @param {Query} query @param {string} token @param {number | null} factor
 */
export const setFactor = (query, token, factor) => updateQuery(query, { factors: setEntry(query.factors, token, factor) });

/**
 * Toggles whether a token is required. A token can't be required and excluded.
 * @param {Query} query @param {string} token @param {boolean} isRequired whether it is now
 */
export const toggleRequired = (query, token, isRequired) => toggleToken(query, token, isRequired, "require", "exclude");

/**
 * Toggles whether a token is excluded. An added token is removed.
 * @param {Query} query @param {string} token @param {boolean} isExcluded whether it is now
 */
export const toggleExcluded = (query, token, isExcluded) => toggleToken(query, token, isExcluded, "exclude", "require");

/**
 * Toggles a token in the list `field`, and removes it from `opposite`.
 * @param {Query} query @param {string} token @param {boolean} isListed
 * @param {"require" | "exclude"} field @param {"require" | "exclude"} opposite
 */
function toggleToken(query, token, isListed, field, opposite) {
  const omitToken = (/** @type {string[]} */ tokens) => tokens.filter((other) => other !== token);
  const others = omitToken(query[field]);
  return updateQuery(query, {
    text: isListed ? removeSign(query.text, token) : query.text,
    [opposite]: omitToken(query[opposite]),
    [field]: isListed ? others : [...query[field], token],
  });
}

/**
 * Selects a value of a field, or not.
 * @param {Query} query @param {string} field @param {string} value @param {boolean} isSelected
 */
export function selectValue(query, field, value, isSelected) {
  const others = (query.filters.get(field)?.values ?? []).filter((other) => other !== value);
  const values = isSelected ? [...others, value] : others;
  return setFilter(query, field, values.length ? { values } : null);
}

/**
 * Selects a range of a field. Without ends, the range is removed.
 * @param {Query} query @param {string} field @param {RangeFilter} range
 */
export const selectRange = (query, field, { from, to, below = false }) =>
  setFilter(query, field, from === null && to === null ? null : { from, to, below: below && to !== null });

/**
 * Replaces the filter of a field; null removes it.
 * @param {Query} query @param {string} field @param {FieldFilter | null} filter
 */
export const setFilter = (query, field, filter) => updateQuery(query, { filters: setEntry(query.filters, field, filter) });

/** @param {Query} query @param {string} filter */
export const setFilterQuery = (query, filter) => updateQuery(query, { filter });

/** @param {Query} query @param {Method} method */
export const setMethod = (query, method) => updateQuery(query, { method });

/** @param {Query} query @param {string} sort */
export const setSort = (query, sort) => updateQuery(query, { sort });

/** @param {Query} query @param {TokenWeight[]} vector */
export const setVector = (query, vector) => updateQuery(query, { vector });

/**
 * Replaces the text. Changes of single tokens are reset, because another text has other tokens.
 * @param {Query} query @param {string} text
 */
export const setQueryText = (query, text) => (text === query.text ? query : { ...resetTokens(query), text });

/**
 * Reads a part of the text as words, no longer as a condition: in quotes.
 * @param {Query} query @param {string} part
 */
export const quotePart = (query, part) =>
  setQueryText(
    query,
    query.text.replace(part, () => `"${part}"`),
  );

/** Removes a part of the text. @param {Query} query @param {string} part */
export const removePart = (query, part) => setQueryText(query, query.text.replace(part, "").replace(/\s+/g, " ").trim());

/** The query for images near a place. @param {GeoPoint} point @returns {Query} */
export const buildNearQuery = ({ lat, lon }) => ({ ...EMPTY_QUERY, text: `near:${lat},${lon},10km` });

/** Adds a word to the text. @param {Query} query @param {string} word */
export const addWord = (query, word) => updateQuery(query, { text: `${query.text} ${word}`.trim() });

/** The query for images like another. @param {string} id @returns {Query} */
export const buildSimilarQuery = (id) => ({ ...EMPTY_QUERY, like: id });

/** Restores the weights of the model. @param {Query} query */
export const resetTokens = (query) => updateQuery(query, { factors: new Map(), require: [], exclude: [] });

/** Removes whatever narrows the result. @param {Query} query */
export const clearConditions = (query) =>
  updateQuery(query, { text: query.text.replace(PLACES, "").trim(), require: [], exclude: [], filters: new Map(), filter: "" });

/**
 * A copy of a map with another value; null removes the key.
 * @template Value
 * @param {Map<string, Value>} map @param {string} key @param {Value | null} value
 */
function setEntry(map, key, value) {
  const copy = new Map(map);
  if (value === null) copy.delete(key);
  else copy.set(key, value);
  return copy;
}

/** The text without the sign before a word: `+dog cat` -> `dog cat`. An excluded word is removed. */
function removeSign(/** @type {string} */ text, /** @type {string} */ token) {
  const parts = text.split(/(\s+)/).map((part) => {
    const signed = /^([+\-\u2212\u2013])([^^]+)/.exec(part);
    if (!signed || signed[2].toLowerCase() !== token.toLowerCase()) return part;
    return signed[1] === "+" ? part.slice(1) : "";
  });
  return parts.join("").trim();
}
