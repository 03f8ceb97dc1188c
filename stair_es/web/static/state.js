// The state of the page, which is in the URL: routes and queries, parsed and formatted. Pure.

import { pathOf, ROOT } from "./root.js";

/** Number of images in a page of hits. */
export const PAGE = 60;
/** Maximum number of images that a URL restores. */
const MOST_HITS = 2400;
/** Number of hits in each ranking of a comparison. */
export const DEPTH = 50;
export const METHODS = { stair: "STAIR words", bag: "bag of words", bm25: "BM25 on captions" };

/** Fields of which an image must have all selected values; for other fields, any of them. */
export const ALL_OF = new Set(["top_tokens", "colors"]);
const MOST_CONDITIONS = 32;
const MOST_VALUES = 64;

/** The empty query. Queries are immutable; `change.js` makes new ones. */
export const NOTHING = Object.freeze({
  text: "",
  like: "",
  vector: [], // [word, weight] of an uploaded image
  factors: new Map(), // word -> factor, or the weight of a word that isn't in the query
  require: [],
  exclude: [],
  filters: new Map(), // field -> {values} or {from, to, below}; an end may be null, `below` leaves `to` itself out
  filter: "",
  method: "stair",
  count: PAGE,
  explain: false, // cards with words instead of the gallery
});

const LISTS = { require: "must", exclude: "not" };

/** The query in the parameters of a URL; `prefix` distinguishes the two queries of a comparison. */
function readQuery(params, prefix = "") {
  const all = (name) => params.getAll(prefix + name);
  const one = (name) => params.get(prefix + name) ?? "";
  const query = {
    ...NOTHING,
    text: one("q"),
    like: one("like"),
    filter: one("filter"),
    vector: pairs(all("v")),
    factors: new Map(pairs(all("x"))),
    filters: readFilters(params, prefix),
  };
  for (const [field, name] of Object.entries(LISTS)) query[field] = [...new Set(all(name))].filter(Boolean);
  query.method = Object.hasOwn(METHODS, one("by")) ? one("by") : "stair";
  query.count = Math.max(PAGE, Math.min(MOST_HITS, Number.parseInt(one("n"), 10) || PAGE));
  query.explain = one("show") === "explain";
  return query;
}

/** Writes what differs from the empty query. */
function writeQuery(query, params, prefix = "") {
  const put = (name, value) => value && params.append(prefix + name, value);
  put("q", query.text);
  put("like", query.like);
  for (const [name, value] of query.vector) put("v", `${round(value)}*${name}`);
  for (const [name, value] of query.factors) put("x", `${round(value)}*${name}`);
  for (const [field, name] of Object.entries(LISTS)) for (const value of query[field]) put(name, value);
  for (const [field, condition] of query.filters)
    if (condition.values) for (const value of condition.values) put(`is.${field}`, value);
    else put(`range.${field}`, `${condition.from ?? ""}${condition.below ? "..." : ".."}${condition.to ?? ""}`);
  put("filter", query.filter);
  if (query.method !== "stair") put("by", query.method);
  if (query.count > PAGE) put("n", String(query.count));
  if (query.explain) put("show", "explain");
}

/** The route of a location: `{view: "search", query}`, `{view: "image", id, ...}` or `{view: "compare", a, b, k}`. */
export function readRoute({ pathname, search }) {
  const path = pathOf(pathname);
  const params = new URLSearchParams(search);
  const image = /^\/image\/(.+)$/.exec(path);
  if (image)
    return {
      view: "image",
      id: decoded(image[1]),
      sort: params.get("sort") === "name" ? "name" : "weight",
      find: params.get("find") ?? "",
      picked: [...new Set(params.getAll("pick"))],
      pieces: params.get("pieces") === "show",
      explain: params.get("show") === "explain",
    };
  if (path === "/compare") {
    const k = Number.parseInt(params.get("k"), 10);
    return { view: "compare", a: readQuery(params, "a."), b: readQuery(params, "b."), k: [10, 20, 50].includes(k) ? k : 10 };
  }
  return { view: "search", query: readQuery(params) };
}

/** The URL of a route. */
export function hrefOf(route) {
  const params = new URLSearchParams();
  let path = "/";
  if (route.view === "image") {
    path = `/image/${encodeURIComponent(route.id)}`;
    if (route.sort === "name") params.set("sort", "name");
    if (route.find) params.set("find", route.find);
    for (const name of route.picked ?? []) params.append("pick", name);
    if (route.pieces) params.set("pieces", "show");
    if (route.explain) params.set("show", "explain");
  } else if (route.view === "compare") {
    path = "/compare";
    writeQuery(route.a, params, "a.");
    writeQuery(route.b, params, "b.");
    if (route.k && route.k !== 10) params.set("k", String(route.k));
  } else writeQuery(route.query, params);
  const text = String(params);
  return `${ROOT}${path}${text && `?${text}`}`;
}

/** The body of the search request. */
export function bodyOf(query, k = query.count) {
  const body = { k, method: query.method };
  if (query.text.trim()) body.text = query.text.trim();
  if (query.like) body.similar_to = query.like;
  if (query.vector.length) body.vector = Object.fromEntries(query.vector);
  if (query.factors.size) body.factors = Object.fromEntries(query.factors);
  for (const field of ["require", "exclude"]) if (query[field].length) body[field] = query[field];
  if (query.filters.size) body.filters = [...query.filters].map(conditionOf);
  if (query.filter.trim()) body.filter = query.filter.trim();
  return body;
}

/** Whether there is something to rank by. */
export const asks = (query) =>
  Boolean(query.text.trim() || query.like || query.vector.length || [...query.factors.values()].some(Boolean));

/** Whether the query has conditions. */
export const narrows = (query) =>
  Boolean(query.filters.size || query.require.length || query.exclude.length || query.filter.trim());

/** `is.FIELD=value`, `range.FIELD=a..b` with both ends, `range.FIELD=a...b` without the upper one; anything else than a number or a date is not an end of a range. */
function readFilters(params, prefix) {
  const filters = new Map();
  for (const [name, value] of params) {
    const [, kind, field] = /^(is|range)\.(.+)$/s.exec(name.startsWith(prefix) ? name.slice(prefix.length) : "") ?? [];
    if (!kind || !value || (filters.size >= MOST_CONDITIONS && !filters.has(field))) continue;
    if (kind === "is") {
      const values = filters.get(field)?.values ?? [];
      if (values.length < MOST_VALUES) filters.set(field, { values: [...new Set([...values, value])] });
    } else {
      const range = readRange(value);
      if (range) filters.set(field, range);
    }
  }
  return filters;
}

function readRange(text) {
  const [, low, dots, high] = /^(.*?)(\.\.\.?)(.*)$/.exec(text) ?? [];
  const [from, to] = [low, high].map(readEnd);
  if (from === undefined || to === undefined || (from === null && to === null)) return null;
  return { from, to, below: dots === "..." && to !== null };
}

/** A number, a date, null if there is no end, undefined if it is something else. */
function readEnd(text) {
  if (text === "") return null;
  if (/^-?\d{1,20}(\.\d{1,20})?$/.test(text ?? "")) return Number(text);
  return /^\d{4}-\d\d-\d\d(T[\d:.]+Z?)?$/.test(text ?? "") && Number.isFinite(Date.parse(text)) ? text : undefined;
}

function conditionOf([field, { values, from, to, below }]) {
  if (values) return { field, [ALL_OF.has(field) ? "all" : "any"]: values };
  return { field, ...(from === null ? {} : { gte: from }), ...(to === null ? {} : { [below ? "lt" : "lte"]: to }) };
}

function pairs(texts) {
  const found = texts.map((text) => [text.slice(text.indexOf("*") + 1), Number(text.slice(0, Math.max(0, text.indexOf("*"))))]);
  return found.filter(([name, value]) => name && Number.isFinite(value) && value >= 0);
}

const round = (value) => String(Number(value.toFixed(4)));

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
