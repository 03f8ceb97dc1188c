// Completions in a filter: fields, values, operators. Pure.

const NUMBERS = new Set(["byte", "short", "integer", "long", "unsigned_long", "float", "double", "half_float", "scaled_float"]);
const DATES = new Set(["date", "date_nanos"]);
const MOST = 10;

const VALUE = /(?:^|[\s(])[-+!]?((?:\\.|[^\s:()"\\])+):("(?:\\.|[^"\\])*|(?:\\.|[^\s()"\\])*)$/su;
const WORD = /(?:^|[\s(])[-+!]?((?:\\.|[^\s:()"\\])*)$/su;

/**
 * The text before the caret: `{kind: "field" | "value", typed, start, ...}`, where `start` is its position, or null within
 * quotes. A value has its `field`; a field has `joined`: whether a complete condition precedes it.
 */
export function readPlace(text, caret) {
  const left = text.slice(0, caret);
  const value = VALUE.exec(left);
  if (value) {
    const typed = value[2].replace(/^"/, "");
    return { kind: "value", field: unescaped(value[1]), typed: unescaped(typed), start: caret - value[2].length };
  }
  const word = WORD.exec(left);
  if (!word || (left.match(/(?<!\\)"/g) ?? []).length % 2) return null;
  const start = caret - word[1].length;
  const before = left.slice(0, start).trimEnd();
  return {
    kind: "field",
    typed: unescaped(word[1]),
    start,
    joined: before !== "" && !/(?:^|[\s(])(?:AND|OR|NOT)$|[(!+-]$/.test(before),
  };
}

/** The fields that complete a word, prefix matches first, and operators if one may follow. */
export function listFields({ typed, joined }, fields) {
  const key = typed.toLowerCase();
  const rank = ({ name, label }) => {
    const [one, other] = [name.toLowerCase(), (label ?? "").toLowerCase()];
    return one.startsWith(key) ? 0 : other.startsWith(key) ? 1 : one.includes(key) || other.includes(key) ? 2 : 3;
  };
  const operators = ["AND", "OR", "NOT"].filter((name) => (joined || name === "NOT") && name.startsWith(typed.toUpperCase()));
  const named = fields
    .map((field) => ({ field, at: rank(field) }))
    .filter(({ at }) => at < 3)
    .sort((one, other) => one.at - other.at)
    .map(({ field: { name, label, type } }) => ({
      text: name,
      note: label && label.toLowerCase() !== name.toLowerCase() ? `${label}, ${type}` : type,
      insert: `${escaped(name)}:`,
    }));
  const joins = operators.map((name) => ({ text: name, note: "", insert: `${name} ` }));
  return (joined && !typed ? [...joins, ...named] : [...named, ...joins]).slice(0, MOST);
}

/** Possible beginnings of a value of this type; null if its values can be listed. */
export function listComparisons({ typed }, type) {
  const like = DATES.has(type) ? ["2020-01-01", "2020-12-31"] : ["10", "20"];
  if (!NUMBERS.has(type) && !DATES.has(type)) return null;
  const signs = [
    [">=", "at least"],
    ["<=", "at most"],
    [">", "more than"],
    ["<", "less than"],
    [`[${like.join(" TO ")}]`, "from, to"],
  ];
  return typed ? [] : signs.map(([text, note]) => ({ text, note, insert: text }));
}

/** A value in the syntax of filters. */
export const quoted = (value) =>
  /^[\p{L}\p{N}_][\p{L}\p{N}_.-]*$/u.test(value) && !/^(AND|OR|NOT)$/.test(value)
    ? value
    : `"${value.replace(/["\\]/g, "\\$&")}"`;

/** Suggested filters, from the existing facets. */
export function listExamples(facets) {
  const of = (kind, not = []) =>
    facets.find((facet) => facet.kind === kind && !not.includes(facet.field) && facet.buckets.length);
  const terms = of("terms", ["top_tokens", "colors", "folder", "source"]) ?? of("terms");
  const range = of("range", ["bytes"]) ?? of("range");
  const date = of("date");
  const value = terms && `${escaped(terms.field)}:${quoted(String(terms.buckets[0].value))}`;
  const middle = range?.buckets[Math.floor(range.buckets.length / 2)];
  const least = range && `${escaped(range.field)}:>=${middle.from}`;
  return [
    least && [least, "at least this"],
    value && [value, "this value"],
    least && value && [`${least} AND NOT ${value}`, "the first without the second"],
    date && [
      `${escaped(date.field)}:[${date.buckets[0].from.slice(0, 10)} TO ${date.buckets.at(-1).to.slice(0, 10)}]`,
      "between two days",
    ],
  ].filter(Boolean);
}

const escaped = (name) => name.replace(/[\s:"\\()[\]{}^~*?/+\-!&|<>=]/g, "\\$&");
const unescaped = (text) => text.replace(/\\(.)/gs, "$1");
