// One picture of the gallery: uncropped, with its name, its score and its heaviest tokens; below it, its title and price.

import { createButton, escapeControls, h, setProps, setText } from "./dom.js";
import { formatPrice, formatToken, formatWeight, isPiece, pluralize, renderPassages } from "./format.js";
import { createThumbnail } from "./hit-card.js";

const SHOWN_TOKEN_COUNT = 3;
/** More than the widest tile shows. */
const MAX_TITLE_CHARS = 300;
/** Number of tiles that are usually on the first screen, whose pictures load eagerly. */
const EAGER_TILE_COUNT = 8;
/** Limits of the aspect ratio of a tile; other pictures get a margin. */
const MIN_RATIO = 0.33;
const MAX_RATIO = 5;
const SKELETON_RATIOS = [1.5, 1, 1.33, 0.75, 1.78];

/**
 * A tile of the gallery.
 * @param {{hit: Hit, position?: number}} item @param {HitActions} actions
 * @returns {Component<{hit: Hit}>}
 */
export function createTile({ hit, position = Infinity }, actions) {
  /** @type {Hit | null} */
  let current = null;
  const score = h("span", { class: "score" });
  const tokens = h("span", { class: "counting" });
  const title = h("bdi", { class: "title" }, escapeControls(hit.name));
  const link = h(
    "a",
    { href: actions.buildOpenHref(hit.id), class: "picture" },
    h(
      "span",
      { class: "frame" },
      createTileImage(hit, position < EAGER_TILE_COUNT),
      h("span", { class: "about", "aria-hidden": "true" }, title, score, tokens),
    ),
  );
  const passages = h("span", { dir: "auto" });
  const read = h("p", { class: "passages" }, passages);
  const duplicates = createButton({ class: "copies", on: { click: () => actions.showDuplicates(current ?? hit) } });
  const element = h("li", { class: "tile", data: { id: hit.id } }, link, renderOffer(hit), read, duplicates);
  element.style.setProperty("--ratio", String(limitRatio(hit)));
  const update = (/** @type {{hit: Hit}} */ item) => {
    if (item.hit === current) return;
    current = item.hit;
    renderScore({ link, score, tokens }, current);
    renderDuplicateCount(duplicates, current);
    passages.replaceChildren(...renderPassages(current.passages));
    read.hidden = !current.passages.length;
  };
  return { element, update };
}

/** The title, or else the caption, and the price, if there are any: a line each. */
function renderOffer(/** @type {Hit} */ { title, caption, price }) {
  const text = (title ?? caption ?? "").slice(0, MAX_TITLE_CHARS);
  if (!text && price === null) return null;
  const lines = [
    text && h("span", { class: "name", dir: "auto" }, escapeControls(text)),
    price !== null && h("span", { class: "price" }, formatPrice(price)),
  ];
  return h("p", { class: "offer" }, lines);
}

/** @param {{link: Element, score: Element, tokens: HTMLElement}} parts @param {Hit} hit */
function renderScore({ link, score, tokens }, { name, score: value, contributions }) {
  const words = contributions.filter(({ token }) => !isPiece(token)).slice(0, SHOWN_TOKEN_COUNT);
  const texts = words.map(({ token }) => formatToken(token));
  setText(score, contributions.length || value ? formatWeight(value) : "");
  tokens.replaceChildren(...texts.flatMap((text, index) => [index ? ", " : "", h("bdi", {}, text)]));
  tokens.hidden = !texts.length;
  const reason = texts.length ? `: ${texts.join(", ")}` : "";
  setProps(link, { "aria-label": `${escapeControls(name)}${value ? `, score ${formatWeight(value)}` : ""}${reason}` });
}

function renderDuplicateCount(/** @type {HTMLElement} */ button, /** @type {Hit} */ { name, document, duplicates }) {
  const [one, more] = document ? ["other page", "other pages"] : ["copy", "copies"];
  const label = `${pluralize(duplicates.length, one, more)} of ${escapeControls(name)}`;
  button.hidden = !duplicates.length;
  setText(button, `+${duplicates.length}`);
  setProps(button, { "aria-label": label, title: document ? "Pages of this document" : "Copies of this image" });
}

/** Aspect ratio, within the limits of a row. */
function limitRatio(/** @type {Hit} */ { width, height }) {
  return width && height && width > 0 && height > 0 ? Math.min(MAX_RATIO, Math.max(MIN_RATIO, width / height)) : 4 / 3;
}

function createTileImage(/** @type {Hit} */ { thumbnail, thumbnail_2x, width, height }, /** @type {boolean} */ isEager) {
  return createThumbnail(thumbnail, {
    width: width || null,
    height: height || null,
    loading: isEager ? "eager" : "lazy",
    fetchpriority: isEager ? "high" : null,
    srcset: thumbnail_2x ? `${thumbnail} 1x, ${thumbnail_2x} 2x` : null,
  });
}

/** Placeholder tiles of several widths. @param {number} count */
export function createSkeletons(count) {
  return Array.from({ length: count }, (_, index) => {
    const skeleton = h("li", { class: "tile skeleton", "aria-hidden": "true" });
    skeleton.style.setProperty("--ratio", String(SKELETON_RATIOS[index % SKELETON_RATIOS.length]));
    return skeleton;
  });
}
