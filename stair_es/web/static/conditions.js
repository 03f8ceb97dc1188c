// The conditions of a query in readable form: fields by their labels, values with their units. Pure.

import { excluding, filtered, requiring, withCondition } from "./change.js";
import { h, visible } from "./dom.js";
import { ALL_OF } from "./state.js";
import { color, short, word } from "./words.js";

const BYTE_UNITS = ["B", "kB", "MB", "GB", "TB"];
const INTEGERS = new Set(["byte", "short", "integer", "long", "unsigned_long"]);
/** Fields whose values are paths, whose end is most informative. */
const PATHS = new Set(["folder", "source"]);

/** The label of a field as given by the server; for columns also before the server has responded. */
function labelOf(field, about) {
  const plain = field.replace(/[_.]/g, " ").trim();
  return visible(about?.fields.find(({ name }) => name === field)?.label ?? plain.charAt(0).toUpperCase() + plain.slice(1));
}

export const isWhole = (field, about) => INTEGERS.has(about?.fields.find(({ name }) => name === field)?.type);

/** A value of a list as text. */
export const valueText = (field, value) => (PATHS.has(field) ? short(value) : visible(value));

/** A value of a list for display: words in their font, colors with a patch. */
export function valueNodes(field, value) {
  if (field === "top_tokens") return word(value);
  return field === "colors" ? color(value) : h("bdi", {}, valueText(field, value));
}

/** An end of a range: a date by its day, bytes with their unit, years without a comma. */
export function endText(field, end) {
  if (typeof end === "string") {
    const date = new Date(end);
    const time = end.includes("T") ? { hour: "2-digit", minute: "2-digit" } : {};
    if (Number.isNaN(date.getTime())) return visible(end);
    return date.toLocaleDateString("en-GB", { day: "numeric", month: "short", year: "numeric", timeZone: "UTC", ...time });
  }
  if (field === "bytes") {
    const power = Math.min(BYTE_UNITS.length - 1, Math.floor(Math.log10(Math.max(1, Math.abs(end))) / 3));
    return `${rounded(end / 1000 ** power, 1)} ${BYTE_UNITS[power]}`;
  }
  return /year/i.test(field) ? String(end) : rounded(end, 4);
}

/** A range: `500 to 1,000`, `from 500`, `up to 1,000`, `10 to under 20`. */
export function rangeText(field, { from, to, below }) {
  if (to === null) return `from ${endText(field, from)}`;
  if (from === null) return `${below ? "under" : "up to"} ${endText(field, to)}`;
  const one = endText(field, from);
  const other = endText(field, to);
  return one === other && !below ? one : `${one} to ${below ? "under " : ""}${other}`;
}

/** All conditions of a query: `{key, kind, text, shown, lift}`, where `lift` is a function that removes the condition. */
export function conditionsOf(query, about) {
  const named = (kind, name, text, shown, lift) => ({ key: `${kind} ${name} ${text}`, kind, text, shown, lift });
  return [
    ...[...query.filters].map(([field, condition]) =>
      named(`${labelOf(field, about)}:`, field, conditionText(field, condition), conditionNodes(field, condition), (now) =>
        withCondition(now, field, null),
      ),
    ),
    ...(query.filter
      ? [named("where", "", visible(query.filter), h("code", {}, visible(query.filter)), (now) => filtered(now, ""))]
      : []),
    ...query.require.map((name) => named("must have", name, visible(name), word(name), (now) => requiring(now, name, true))),
    ...query.exclude.map((name) => named("not", name, visible(name), word(name), (now) => excluding(now, name, true))),
  ];
}

const joined = (field) => (ALL_OF.has(field) ? " and " : " or ");

function conditionText(field, condition) {
  if (!condition.values) return rangeText(field, condition);
  return condition.values.map((value) => valueText(field, value)).join(joined(field));
}

function conditionNodes(field, condition) {
  if (!condition.values) return rangeText(field, condition);
  return condition.values.flatMap((value, place) => [place ? joined(field) : "", valueNodes(field, value)].flat());
}

const rounded = (value, digits) => value.toLocaleString("en", { maximumFractionDigits: digits });
