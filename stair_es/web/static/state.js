// What the page shows is what the URL says: routes and queries, read and written. Pure.

import { pathOf, ROOT } from "./root.js";

export const PAGE = 24;
/** How far the rankings of a comparison are looked at. */
export const DEPTH = 50;
export const METHODS = { stair: "STAIR words", bag: "bag of words", bm25: "BM25 on captions" };

/** A query of nothing. Queries are never changed: `change.js` makes new ones. */
export const NOTHING = Object.freeze({
  text: "",
  like: "",
  vector: [], // [word, weight] of an image that the visitor brought
  factors: new Map(), // word -> factor; of a word that the query lacks: its weight
  require: [],
  exclude: [],
  has: [],
  colours: [],
  sources: [],
  filter: "",
  method: "stair",
  count: PAGE,
});

const LISTS = { require: "must", exclude: "not", has: "has", colours: "colour", sources: "source" };

/** The query in the parameters of a URL; `prefix` tells the two queries of a comparison apart. */
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
  };
  for (const [field, name] of Object.entries(LISTS)) query[field] = [...new Set(all(name))].filter(Boolean);
  query.method = Object.hasOwn(METHODS, one("by")) ? one("by") : "stair";
  query.count = Math.max(PAGE, Math.min(480, Number.parseInt(one("n"), 10) || PAGE));
  return query;
}

/** Writes what differs from nothing. */
function writeQuery(query, params, prefix = "") {
  const put = (name, value) => value && params.append(prefix + name, value);
  put("q", query.text);
  put("like", query.like);
  for (const [name, value] of query.vector) put("v", `${round(value)}*${name}`);
  for (const [name, value] of query.factors) put("x", `${round(value)}*${name}`);
  for (const [field, name] of Object.entries(LISTS)) for (const value of query[field]) put(name, value);
  put("filter", query.filter);
  if (query.method !== "stair") put("by", query.method);
  if (query.count > PAGE) put("n", String(query.count));
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
    };
  if (path === "/compare") {
    const k = Number.parseInt(params.get("k"), 10);
    return { view: "compare", a: readQuery(params, "a."), b: readQuery(params, "b."), k: [10, 20, 50].includes(k) ? k : 10 };
  }
  return { view: "search", query: readQuery(params) };
}

/** The address of a route. */
export function hrefOf(route) {
  const params = new URLSearchParams();
  let path = "/";
  if (route.view === "image") {
    path = `/image/${encodeURIComponent(route.id)}`;
    if (route.sort === "name") params.set("sort", "name");
    if (route.find) params.set("find", route.find);
    for (const name of route.picked ?? []) params.append("pick", name);
  } else if (route.view === "compare") {
    path = "/compare";
    writeQuery(route.a, params, "a.");
    writeQuery(route.b, params, "b.");
    if (route.k && route.k !== 10) params.set("k", String(route.k));
  } else writeQuery(route.query, params);
  const text = String(params);
  return `${ROOT}${path}${text && `?${text}`}`;
}

/** The body that the server is asked with. */
export function bodyOf(query, k = query.count) {
  const filters = [query.filter.trim() && `(${query.filter.trim()})`];
  if (query.sources.length)
    filters.push(`(${query.sources.map((source) => `source:"${source.replace(/["\\]/g, "\\$&")}"`).join(" OR ")})`);
  const body = { k, method: query.method };
  if (query.text.trim()) body.text = query.text.trim();
  if (query.like) body.similar_to = query.like;
  if (query.vector.length) body.vector = Object.fromEntries(query.vector);
  if (query.factors.size) body.factors = Object.fromEntries(query.factors);
  for (const field of ["require", "exclude"]) if (query[field].length) body[field] = query[field];
  if (query.has.length) body.top_tokens = query.has;
  if (query.colours.length) body.colours = query.colours;
  const filter = filters.filter(Boolean).join(" AND ");
  if (filter) body.filter = query.sources.length ? filter : query.filter.trim();
  return body;
}

/** Whether there is something to rank by. */
export const asks = (query) =>
  Boolean(query.text.trim() || query.like || query.vector.length || [...query.factors.values()].some(Boolean));

/** Whether something narrows what is found. */
export const narrows = (query) =>
  Boolean([query.has, query.colours, query.sources, query.require, query.exclude].some((list) => list.length) || query.filter.trim());

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
