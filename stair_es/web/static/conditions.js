// The conditions of a query in readable form: fields by their labels, values with their units.

import { escapeControls, h } from "./dom.js";
import { capitalize, formatToken, renderColor, renderToken, shortenPath } from "./format.js";
import { MATCH_ALL_FIELDS, quotePart, removePart, setFilter, setFilterQuery, toggleExcluded, toggleRequired } from "./query.js";

const BYTE_UNITS = ["B", "kB", "MB", "GB", "TB"];
const INTEGER_TYPES = new Set(["byte", "short", "integer", "long", "unsigned_long"]);
/** Fields whose values are paths, whose end is most informative. */
const PATH_FIELDS = new Set(["folder", "source"]);

const findField = (/** @type {string} */ name, /** @type {AboutResponse | null} */ about) =>
  about?.fields.find((field) => field.name === name);

/** The label of a field as given by the server; for columns also before the server has responded. */
function getLabel(/** @type {string} */ field, /** @type {AboutResponse | null} */ about) {
  return escapeControls(findField(field, about)?.label ?? capitalize(field.replace(/[_.]/g, " ").trim()));
}

/** @param {string} field @param {AboutResponse | null} about */
export const isInteger = (field, about) => INTEGER_TYPES.has(findField(field, about)?.type ?? "");

/** A value of a list as text. @param {string} field @param {string} value */
export const formatValue = (field, value) => (PATH_FIELDS.has(field) ? shortenPath(value) : escapeControls(value));

/**
 * A value of a list for display: tokens in their font, colors with a patch.
 * @param {string} field @param {string} value @returns {Child[]}
 */
export function renderValue(field, value) {
  if (field === "top_tokens") return [renderToken(value)];
  return field === "colors" ? renderColor(value) : [h("bdi", {}, formatValue(field, value))];
}

/**
 * An end of a range: a date by its day, bytes with their unit, years without a comma.
 * @param {string} field @param {number | string} end
 */
export function formatRangeEnd(field, end) {
  if (typeof end === "string") return formatDate(end);
  if (field === "bytes") {
    const power = Math.min(BYTE_UNITS.length - 1, Math.floor(Math.log10(Math.max(1, Math.abs(end))) / 3));
    return `${formatNumber(end / 1000 ** power, 1)} ${BYTE_UNITS[power]}`;
  }
  return /year/i.test(field) ? String(end) : formatNumber(end, 4);
}

function formatDate(/** @type {string} */ text) {
  const date = new Date(text);
  if (Number.isNaN(date.getTime())) return escapeControls(text);
  /** @type {Intl.DateTimeFormatOptions} */
  const time = text.includes("T") ? { hour: "2-digit", minute: "2-digit" } : {};
  return date.toLocaleDateString("en-GB", { day: "numeric", month: "short", year: "numeric", timeZone: "UTC", ...time });
}

/** A range: `500 to 1,000`, `from 500`, `up to 1,000`, `10 to under 20`. @param {string} field @param {RangeFilter} range */
export function formatRange(field, { from, to, below }) {
  const low = from === null ? "" : formatRangeEnd(field, from);
  const high = to === null ? "" : formatRangeEnd(field, to);
  if (to === null) return `from ${low}`;
  if (from === null) return `${below ? "under" : "up to"} ${high}`;
  return low === high && !below ? low : `${low} to ${below ? "under " : ""}${high}`;
}

/**
 * All conditions of a query, with those that its text means: without them, the text is read as words.
 * @param {Query} query @param {AboutResponse | null} about @param {SearchResponse["conditions"]} understood
 * @returns {Condition[]}
 */
export function listConditions(query, about, understood) {
  /** @type {(kind: string, name: string, text: string, nodes: Child[], remove: QueryUpdate) => Condition} */
  const build = (kind, name, text, nodes, remove) => ({ key: `${kind} ${name} ${text}`, kind, text, nodes, remove });
  const filter = escapeControls(query.filter);
  return [
    ...understood.map(({ text, field, meaning }) => {
      const shown = escapeControls(meaning || text);
      const remove = (/** @type {Query} */ current) => (meaning ? removePart : quotePart)(current, text);
      return build(`${getLabel(field, about)}:`, "text", shown, [shown], remove);
    }),
    ...[...query.filters].map(([field, condition]) =>
      build(`${getLabel(field, about)}:`, field, formatFilter(field, condition), renderFilter(field, condition), (current) =>
        setFilter(current, field, null),
      ),
    ),
    ...(filter ? [build("where", "", filter, [h("code", {}, filter)], (current) => setFilterQuery(current, ""))] : []),
    ...query.require.map((token) =>
      build("must have", token, formatToken(token), [renderToken(token)], (current) => toggleRequired(current, token, true)),
    ),
    ...query.exclude.map((token) =>
      build("not", token, formatToken(token), [renderToken(token)], (current) => toggleExcluded(current, token, true)),
    ),
  ];
}

const getConjunction = (/** @type {string} */ field) => (MATCH_ALL_FIELDS.has(field) ? " and " : " or ");

function formatFilter(/** @type {string} */ field, /** @type {FieldFilter} */ filter) {
  if (!filter.values) return formatRange(field, filter);
  return filter.values.map((value) => formatValue(field, value)).join(getConjunction(field));
}

/** @param {string} field @param {FieldFilter} filter @returns {Child[]} */
function renderFilter(field, filter) {
  if (!filter.values) return [formatRange(field, filter)];
  return filter.values.flatMap((value, index) => [index ? getConjunction(field) : "", ...renderValue(field, value)]);
}

const formatNumber = (/** @type {number} */ value, /** @type {number} */ digits) =>
  value.toLocaleString("en", { maximumFractionDigits: digits });
