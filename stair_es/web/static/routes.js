// The state of the page that is in the URL: routes and their queries, parsed and formatted.

import { BASE_PATH, stripBasePath } from "./base-url.js";
import { EMPTY_QUERY, isEmptyQuery, METHODS, PAGE_SIZE } from "./query.js";

/** Maximum number of images that a URL restores. */
const MAX_HITS = 2400;
const MAX_FILTERS = 32;
const MAX_FILTER_VALUES = 64;

/** The numbers of first hits that a comparison may show. */
export const COMPARED_COUNTS = [10, 20, 50];

/** The query in the parameters of a URL; `prefix` distinguishes the two queries of a comparison. */
function parseQuery(/** @type {URLSearchParams} */ params, prefix = "") {
  const getAll = (/** @type {string} */ name) => params.getAll(prefix + name);
  const get = (/** @type {string} */ name) => params.get(prefix + name) ?? "";
  const getSet = (/** @type {string} */ name) => [...new Set(getAll(name))].filter(Boolean);
  const count = Number.parseInt(get("n"), 10) || PAGE_SIZE;
  /** @type {Query} */
  const query = {
    text: get("q"),
    like: get("like"),
    vector: parseWeights(getAll("v")),
    factors: new Map(parseWeights(getAll("x"))),
    require: getSet("must"),
    exclude: getSet("not"),
    filters: parseFilters(params, prefix),
    filter: get("filter"),
    method: Object.hasOwn(METHODS, get("by")) ? /** @type {Method} */ (get("by")) : EMPTY_QUERY.method,
    sort: get("sort"),
    count: Math.max(PAGE_SIZE, Math.min(MAX_HITS, count)),
    explain: get("show") === "explain",
  };
  return query;
}

/** Writes what differs from the empty query. */
function writeQuery(/** @type {Query} */ query, /** @type {URLSearchParams} */ params, prefix = "") {
  const append = (/** @type {string} */ name, /** @type {string} */ value) => value && params.append(prefix + name, value);
  append("q", query.text);
  append("like", query.like);
  for (const [token, weight] of query.vector) append("v", `${formatNumber(weight)}*${token}`);
  for (const [token, factor] of query.factors) append("x", `${formatNumber(factor)}*${token}`);
  for (const token of query.require) append("must", token);
  for (const token of query.exclude) append("not", token);
  for (const [field, filter] of query.filters)
    if (filter.values) for (const value of filter.values) append(`is.${field}`, value);
    else append(`range.${field}`, `${filter.from ?? ""}${filter.below ? "..." : ".."}${filter.to ?? ""}`);
  append("filter", query.filter);
  if (query.method !== EMPTY_QUERY.method) append("by", query.method);
  append("sort", query.sort);
  if (query.count > PAGE_SIZE) append("n", String(query.count));
  if (query.explain) append("show", "explain");
}

/** The route of a location. @param {{pathname: string, search: string}} location @returns {Route} */
export function parseRoute({ pathname, search }) {
  const path = stripBasePath(pathname);
  const params = new URLSearchParams(search);
  const image = /^\/image\/(.+)$/.exec(path);
  if (image)
    return {
      view: "image",
      id: decodeComponent(image[1]),
      sort: params.get("sort") === "name" ? "name" : "weight",
      find: params.get("find") ?? "",
      picked: [...new Set(params.getAll("pick"))],
      pieces: params.get("pieces") === "show",
      explain: params.get("show") === "explain",
    };
  if (path === "/coverage") return { view: "coverage" };
  if (path !== "/compare") return { view: "search", query: parseQuery(params) };
  const k = Number.parseInt(params.get("k") ?? "", 10);
  return {
    view: "compare",
    a: parseQuery(params, "a."),
    b: parseQuery(params, "b."),
    k: COMPARED_COUNTS.includes(k) ? k : COMPARED_COUNTS[0],
  };
}

/** The URL of a route. @param {RouteTarget} route */
export function buildHref(route) {
  const params = new URLSearchParams();
  let path = "/";
  if (route.view === "image") {
    path = `/image/${encodeURIComponent(route.id)}`;
    if (route.sort === "name") params.set("sort", "name");
    if (route.find) params.set("find", route.find);
    for (const token of route.picked ?? []) params.append("pick", token);
    if (route.pieces) params.set("pieces", "show");
    if (route.explain) params.set("show", "explain");
  } else if (route.view === "compare") {
    path = "/compare";
    writeQuery(route.a, params, "a.");
    writeQuery(route.b, params, "b.");
    if (route.k && route.k !== COMPARED_COUNTS[0]) params.set("k", String(route.k));
  } else if (route.view === "coverage") path = "/coverage";
  else writeQuery(route.query, params);
  const text = String(params);
  return `${BASE_PATH}${path}${text && `?${text}`}`;
}

/** The URL of a search. @param {Query} query */
export const buildSearchHref = (query) => buildHref({ view: "search", query });

/** The URL of a comparison: the query of a search by its own method and by another. @param {string} searchUrl */
export function buildCompareHref(searchUrl) {
  const a = { ...parseQuery(new URL(searchUrl, location.href).searchParams), sort: "", count: PAGE_SIZE, explain: false };
  const method = /** @type {Method} */ (a.method === EMPTY_QUERY.method ? "bag" : EMPTY_QUERY.method);
  return buildHref({ view: "compare", a, b: isEmptyQuery(a) ? a : { ...a, method }, k: 0 });
}

/**
 * `is.FIELD=value`, `range.FIELD=a..b` with both ends, `range.FIELD=a...b` without the upper one; anything else than a number
 * or a date is not an end of a range.
 */
function parseFilters(/** @type {URLSearchParams} */ params, /** @type {string} */ prefix) {
  /** @type {Query["filters"]} */
  const filters = new Map();
  for (const [name, value] of params) {
    const [, kind, field] = /^(is|range)\.(.+)$/s.exec(name.startsWith(prefix) ? name.slice(prefix.length) : "") ?? [];
    if (!kind || !value || (filters.size >= MAX_FILTERS && !filters.has(field))) continue;
    if (kind === "is") {
      const values = filters.get(field)?.values ?? [];
      if (values.length < MAX_FILTER_VALUES) filters.set(field, { values: [...new Set([...values, value])] });
    } else {
      const range = parseRange(value);
      if (range) filters.set(field, range);
    }
  }
  return filters;
}

function parseRange(/** @type {string} */ text) {
  const [, low, dots, high] = /^(.*?)(\.\.\.?)(.*)$/.exec(text) ?? [];
  const [from, to] = [low, high].map(parseRangeEnd);
  if (from === undefined || to === undefined || (from === null && to === null)) return null;
  return { from, to, below: dots === "..." && to !== null };
}

/** A number, a date, null if there is no end, undefined if it is something else. */
function parseRangeEnd(text = "x") {
  if (text === "") return null;
  if (/^-?\d{1,20}(\.\d{1,20})?$/.test(text)) return Number(text);
  return /^\d{4}-\d\d-\d\d(T[\d:.]+Z?)?$/.test(text) && Number.isFinite(Date.parse(text)) ? text : undefined;
}

/** Pairs of tokens and weights: `0.5*bird`. */
function parseWeights(/** @type {string[]} */ texts) {
  /** @type {TokenWeight[]} */
  const weights = texts.map((text) => {
    const star = text.indexOf("*");
    return [text.slice(star + 1), Number(text.slice(0, Math.max(0, star)))];
  });
  return weights.filter(([token, weight]) => token && Number.isFinite(weight) && weight >= 0);
}

const formatNumber = (/** @type {number} */ value) => String(Number(value.toFixed(4)));

function decodeComponent(/** @type {string} */ text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
