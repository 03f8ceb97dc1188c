// Completions in a filter query: fields, values, operators. Pure.

const NUMBER_TYPES = new Set([
  "byte",
  "short",
  "integer",
  "long",
  "unsigned_long",
  "float",
  "double",
  "half_float",
  "scaled_float",
]);
const DATE_TYPES = new Set(["date", "date_nanos"]);
const MAX_COMPLETIONS = 10;
/** Facets whose values or ranges make poor examples. */
const POOR_EXAMPLE_FIELDS = new Set(["top_tokens", "colors", "folder", "source", "bytes"]);

const VALUE_PATTERN = /(?:^|[\s(])[-+!]?((?:\\.|[^\s:()"\\])+):("(?:\\.|[^"\\])*|(?:\\.|[^\s()"\\])*)$/su;
const WORD_PATTERN = /(?:^|[\s(])[-+!]?((?:\\.|[^\s:()"\\])*)$/su;

/**
 * The context of the caret, or null within quotes.
 * @param {string} text @param {number} caret @returns {CompletionContext | null}
 */
export function parseContext(text, caret) {
  const left = text.slice(0, caret);
  const value = VALUE_PATTERN.exec(left);
  if (value) {
    const prefix = unescapeName(value[2].replace(/^"/, ""));
    return { kind: "value", field: unescapeName(value[1]), prefix, start: caret - value[2].length };
  }
  const word = WORD_PATTERN.exec(left);
  if (!word || (left.match(/(?<!\\)"/g) ?? []).length % 2) return null;
  const start = caret - word[1].length;
  const before = left.slice(0, start).trimEnd();
  const followsCondition = before !== "" && !/(?:^|[\s(])(?:AND|OR|NOT)$|[(!+-]$/.test(before);
  return { kind: "field", prefix: unescapeName(word[1]), start, followsCondition };
}

/**
 * The fields that complete a word, prefix matches first, and operators if one may follow.
 * @param {FieldContext} context @param {FieldInfo[]} fields
 */
export function completeField({ prefix, followsCondition }, fields) {
  /** @type {Completion[]} */
  const named = fields
    .map((field) => ({ field, rank: rankField(field, prefix.toLowerCase()) }))
    .filter(({ rank }) => rank !== null)
    .sort((one, other) => Number(one.rank) - Number(other.rank))
    .map(({ field: { name, label, type } }) => ({
      text: name,
      note: label && label.toLowerCase() !== name.toLowerCase() ? `${label}, ${type}` : type,
      insert: `${escapeName(name)}:`,
    }));
  const operators = (followsCondition ? ["AND", "OR", "NOT"] : ["NOT"])
    .filter((name) => name.startsWith(prefix.toUpperCase()))
    .map((name) => ({ text: name, note: "", insert: `${name} ` }));
  const operatorsFirst = followsCondition && !prefix;
  return (operatorsFirst ? [...operators, ...named] : [...named, ...operators]).slice(0, MAX_COMPLETIONS);
}

/** How well a field matches: 0 is best, null is no match. */
function rankField(/** @type {FieldInfo} */ { name, label }, /** @type {string} */ prefix) {
  const texts = [name.toLowerCase(), (label ?? "").toLowerCase()];
  const rank = texts.findIndex((text) => text.startsWith(prefix));
  if (rank >= 0) return rank;
  return texts.some((text) => text.includes(prefix)) ? 2 : null;
}

/**
 * Possible beginnings of a value of this type; null if its values can be listed.
 * @param {ValueContext} context @param {string} type @returns {Completion[] | null}
 */
export function completeComparison({ prefix }, type) {
  if (!NUMBER_TYPES.has(type) && !DATE_TYPES.has(type)) return null;
  if (prefix) return [];
  const range = DATE_TYPES.has(type) ? "[2020-01-01 TO 2020-12-31]" : "[10 TO 20]";
  const operators = [
    [">=", "at least"],
    ["<=", "at most"],
    [">", "more than"],
    ["<", "less than"],
    [range, "from, to"],
  ];
  return operators.map(([text, note]) => ({ text, note, insert: text }));
}

/** A value in the syntax of filters. @param {string} value */
export const quoteValue = (value) =>
  /^[\p{L}\p{N}_][\p{L}\p{N}_.-]*$/u.test(value) && !/^(AND|OR|NOT)$/.test(value)
    ? value
    : `"${value.replace(/["\\]/g, "\\$&")}"`;

/**
 * Suggested filters with their meanings, from the existing facets.
 * @param {Facet[]} facets @returns {[filter: string, meaning: string][]}
 */
export function listExamples(facets) {
  const filled = facets.filter(({ buckets }) => buckets.length);
  const terms = filled.filter((facet) => facet.kind === "terms");
  const ranges = filled.filter((facet) => facet.kind !== "terms");
  const numbers = ranges.filter(({ kind }) => kind === "range");
  const term = terms.find(({ field }) => !POOR_EXAMPLE_FIELDS.has(field)) ?? terms[0];
  const range = numbers.find(({ field }) => !POOR_EXAMPLE_FIELDS.has(field)) ?? numbers[0];
  const date = ranges.find(({ kind }) => kind === "date");
  const value = term && `${escapeName(term.field)}:${quoteValue(String(term.buckets[0].value))}`;
  const minimum = range && `${escapeName(range.field)}:>=${range.buckets[Math.floor(range.buckets.length / 2)].from}`;
  /** @type {[string, string][]} */
  const examples = [];
  if (minimum) examples.push([minimum, "at least this"]);
  if (value) examples.push([value, "this value"]);
  if (minimum && value) examples.push([`${minimum} AND NOT ${value}`, "the first without the second"]);
  if (date) examples.push([formatDateExample(date), "between two days"]);
  return examples;
}

function formatDateExample(/** @type {RangeFacet} */ { field, buckets }) {
  const [from, to] = [buckets[0].from, buckets[buckets.length - 1].to].map((end) => String(end).slice(0, 10));
  return `${escapeName(field)}:[${from} TO ${to}]`;
}

const escapeName = (/** @type {string} */ name) => name.replace(/[\s:"\\()[\]{}^~*?/+\-!&|<>=]/g, "\\$&");
const unescapeName = (/** @type {string} */ text) => text.replace(/\\(.)/gs, "$1");
