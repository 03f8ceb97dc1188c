// The metadata of an image in readable form, other than its tokens.

import { escapeControls, h } from "./dom.js";
import { formatCount, pluralize, renderColor } from "./format.js";

const BYTE_UNITS = ["KiB", "MiB", "GiB"];

/** A URI as users type it: the path of a local file, else the URI itself. @param {string} uri */
export function formatUri(uri) {
  if (!uri.startsWith("file://")) return uri;
  try {
    const { pathname, hash } = new URL(uri);
    return decodeURIComponent(pathname) + decodeURIComponent(hash);
  } catch {
    return uri;
  }
}

/** The size, the format and the dates in one line. @param {ImageResponse["facts"]} facts */
export function formatSummary({ width, height, bytes, format, taken_at, modified_at }) {
  const parts = [
    width && height && `${formatCount(width)} × ${formatCount(height)}`,
    typeof bytes === "number" && formatBytes(bytes),
    format,
    taken_at ? `taken ${formatDate(taken_at)}` : modified_at && `changed ${formatDate(modified_at)}`,
  ];
  return escapeControls(parts.filter(Boolean).join(" · "));
}

/** The camera and how it was set in one line. @param {ImageFacts} facts */
export function formatCamera({ camera, lens, aperture, exposure_s, iso, focal_mm }) {
  const parts = [
    camera,
    lens,
    aperture && `f/${aperture}`,
    exposure_s && formatExposure(exposure_s),
    iso && `ISO ${iso}`,
    focal_mm && `${focal_mm} mm`,
  ];
  return escapeControls(parts.filter(Boolean).join(" · "));
}

/** Seconds as cameras show them: `1/200 s`, `2.5 s`. */
function formatExposure(/** @type {number} */ seconds) {
  return seconds < 0.4 ? `1/${Math.round(1 / seconds)} s` : `${Number(seconds.toPrecision(3))} s`;
}

/** The point of a document, whose fields may have any value; null if it has none. @param {ImageFacts} facts @returns {GeoPoint | null} */
export function getPoint({ location: point }) {
  const { lat, lon } = /** @type {Partial<GeoPoint>} */ (point ?? {});
  return Number.isFinite(lat) && Number.isFinite(lon) ? { lat: Number(lat), lon: Number(lon) } : null;
}

/** The city, the country and the coordinates. @param {ImageFacts} facts */
export function formatPlace(facts) {
  const point = getPoint(facts);
  const city = [facts.place, facts.country].filter(Boolean).join(", ");
  return escapeControls([city, point && `${point.lat}, ${point.lon}`].filter(Boolean).join(" · "));
}

/**
 * A row of the table of all fields: the name of the field, as in a filter, and its value.
 * @param {[name: string, value: any]} field
 */
export const renderFieldRow = ([name, value]) =>
  h("tr", {}, h("th", { scope: "row" }, escapeControls(name)), h("td", {}, renderFieldValue(name, value)));

function renderFieldValue(/** @type {string} */ name, /** @type {any} */ value) {
  if (name !== "colors" || !Array.isArray(value)) return h("bdi", {}, escapeControls(formatFieldValue(name, value)));
  const colors = value.map((color) => h("li", {}, renderColor(color)));
  return h("ul", { class: "chips" }, colors);
}

function formatFieldValue(/** @type {string} */ name, /** @type {any} */ value) {
  if (name === "bytes" && Number.isFinite(value))
    return value < 1024 ? formatBytes(value) : `${formatBytes(value)} (${pluralize(value, "byte")})`;
  if (typeof value === "string") return name.endsWith("_at") ? formatDate(value) : value;
  return Array.isArray(value) && value.every((each) => typeof each !== "object") ? value.join(", ") : JSON.stringify(value);
}

function formatBytes(/** @type {number} */ bytes) {
  const power = Math.min(BYTE_UNITS.length, Math.floor(Math.log2(Math.max(1, bytes)) / 10));
  return power ? `${(bytes / 1024 ** power).toFixed(1)} ${BYTE_UNITS[power - 1]}` : pluralize(bytes, "byte");
}

/** A stored date without time zone (UTC) and fractions of a second. */
const formatDate = (/** @type {unknown} */ text) =>
  String(text).replace(/^(\d{4}-\d\d-\d\d)T(\d\d:\d\d(?::\d\d)?)(?:\.\d+)?(?:Z|\+00:00)?$/, "$1 $2");
