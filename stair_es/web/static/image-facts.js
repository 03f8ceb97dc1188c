// The metadata of an image in readable form, other than its words.

import { color, many } from "./words.js";
import { h, visible } from "./dom.js";

const UNITS = ["KiB", "MiB", "GiB"];

/** A URI as users type it: the path of a local file, else the URI itself. */
export function readablePath(uri) {
  if (!uri.startsWith("file://")) return uri;
  try {
    const { pathname, hash } = new URL(uri);
    return decodeURIComponent(pathname) + decodeURIComponent(hash);
  } catch {
    return uri;
  }
}

/** The size, the format and the dates in one line. */
export function summary({ width, height, bytes, format, taken_at: taken, modified_at: modified }) {
  const parts = [
    width && height && `${width.toLocaleString("en")} × ${height.toLocaleString("en")}`,
    Number.isFinite(bytes) && size(bytes),
    format,
    taken ? `taken ${date(taken)}` : modified && `changed ${date(modified)}`,
  ];
  return visible(parts.filter(Boolean).join(" · "));
}

/** A row of the table of all fields: the name of the field, as in a filter, and its value. */
export function factRow([name, value]) {
  return h("tr", {}, h("th", { scope: "row" }, visible(name)), h("td", {}, drawn(name, value)));
}

function drawn(name, value) {
  if (name === "colors" && Array.isArray(value))
    return h(
      "ul",
      { class: "chips" },
      value.map((one) => h("li", {}, color(one))),
    );
  return h("bdi", {}, visible(told(name, value)));
}

function told(name, value) {
  if (name === "bytes" && Number.isFinite(value)) return value < 1024 ? size(value) : `${size(value)} (${many(value, "byte")})`;
  if (typeof value === "string") return name.endsWith("_at") ? date(value) : value;
  return Array.isArray(value) && value.every((one) => typeof one !== "object") ? value.join(", ") : JSON.stringify(value);
}

function size(bytes) {
  const power = Math.min(UNITS.length, Math.floor(Math.log2(Math.max(1, bytes)) / 10));
  return power ? `${(bytes / 1024 ** power).toFixed(1)} ${UNITS[power - 1]}` : many(bytes, "byte");
}

/** A stored date without time zone (UTC) and fractions of a second. */
const date = (text) => String(text).replace(/^(\d{4}-\d\d-\d\d)T(\d\d:\d\d(?::\d\d)?)(?:\.\d+)?(?:Z|\+00:00)?$/, "$1 $2");
