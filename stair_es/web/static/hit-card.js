// One hit: the picture, its name and score, and the common tokens with their contributions.

import { createButton, createIcon, escapeControls, getKey, h, renderList, setProps, setText } from "./dom.js";
import { formatPrice, formatWeight, getToken, renderPassages, renderToken } from "./format.js";

const SHOWN_CONTRIBUTION_COUNT = 4;
const SHOWN_OTHER_TOKEN_COUNT = 3;

/** A card of a hit. @param {HitItem} item @param {HitActions} actions @returns {Component<HitItem>} */
export function createHitCard({ hit }, actions) {
  const parts = createParts(hit, actions);
  let isExpanded = false;
  /** @type {HitItem} */
  let current;
  const update = (/** @type {HitItem} */ item) => {
    current = item;
    renderHead(parts, item);
    renderContributions(parts, item, isExpanded, actions);
    renderOtherTokens(parts, item.hit, actions);
  };
  parts.expander.addEventListener("click", () => {
    isExpanded = !isExpanded;
    update(current);
  });
  return { element: parts.element, update };
}

function createParts(/** @type {Hit} */ hit, /** @type {HitActions} */ actions) {
  const name = escapeControls(hit.name);
  const href = actions.buildOpenHref(hit.id);
  const score = h("span", { class: "score" });
  const caption = h("p", { class: "caption", dir: "auto" });
  const passages = h("p", { class: "caption", dir: "auto" });
  const price = hit.price === null ? null : h("p", { class: "price" }, formatPrice(hit.price));
  const scoreBar = h("div", { class: "ribbon", "aria-hidden": "true" });
  const contributions = h("ul", { class: "reasons", "aria-label": "Words in common" });
  const expander = createButton({ class: "rest" });
  const otherTokens = h("ul", { class: "also", "aria-label": "Other words" });
  const similar = { href: actions.buildSimilarHref(hit.id), class: "like", "aria-label": `more like this: ${name}` };
  const element = h(
    "li",
    { class: "hit", data: { id: hit.id } },
    h("a", { href, class: "picture", tabindex: "-1", "aria-hidden": "true" }, createThumbnail(hit.thumbnail)),
    h("div", { class: "head" }, h("h3", {}, h("a", { href, class: "name", dir: "auto" }, name)), score, caption, passages, price),
    scoreBar,
    contributions,
    h("div", { class: "foot" }, expander, otherTokens, h("a", similar, createIcon("similar"), "more like this")),
  );
  return { element, score, caption, passages, scoreBar, contributions, expander, otherTokens };
}

/** @typedef {ReturnType<typeof createParts>} Parts */

function renderHead(/** @type {Parts} */ { score, caption, passages, scoreBar }, /** @type {HitItem} */ { hit, getHue, scale }) {
  const text = escapeControls(hit.caption ?? hit.title ?? "");
  setText(score, formatWeight(hit.score));
  score.hidden = scoreBar.hidden = !hit.score; // if the hits aren't ranked by words
  setProps(score, { title: `score ${hit.score}` });
  setText(caption, text);
  caption.hidden = !text;
  setProps(caption, { title: text ? text.slice(0, 400) : null });
  passages.replaceChildren(...renderPassages(hit.passages));
  passages.hidden = !hit.passages.length;
  renderScoreBar(scoreBar, hit, getHue, scale.score);
}

/** @param {Parts} parts @param {HitItem} item @param {boolean} isExpanded @param {HitActions} actions */
function renderContributions({ contributions, expander }, { hit, scale, getHue, required }, isExpanded, actions) {
  const hidden = hit.contributions.slice(SHOWN_CONTRIBUTION_COUNT);
  const shown = isExpanded ? hit.contributions : hit.contributions.slice(0, SHOWN_CONTRIBUTION_COUNT);
  const items = shown.map((contribution) => {
    const { token } = contribution;
    return { token, contribution, hue: getHue(token), max: scale.contribution, isRequired: required.has(token) };
  });
  renderList(contributions, items, getToken, ({ token }) => createContributionRow(token, actions.selectToken));
  const sum = hidden.reduce((total, { contribution }) => total + contribution, 0);
  const label = isExpanded ? "fewer" : `+${hidden.length} = ${formatWeight(sum)}`;
  expander.hidden = !hidden.length;
  setProps(expander, {
    "aria-expanded": String(isExpanded),
    "aria-label": `${label}: words in common of ${escapeControls(hit.name)}`,
  });
  setText(expander, label);
}

function renderOtherTokens(/** @type {Parts} */ { otherTokens }, /** @type {Hit} */ hit, /** @type {HitActions} */ actions) {
  const common = new Set(hit.contributions.map(({ token }) => token));
  const others = hit.tokens.filter(([token]) => !common.has(token)).slice(0, SHOWN_OTHER_TOKEN_COUNT);
  const items = others.map(([token]) => ({ token }));
  renderList(otherTokens, items, getToken, ({ token }) => createTokenTag(token, actions.selectToken));
  otherTokens.hidden = !otherTokens.children.length;
}

/** @param {string} token @param {HitActions["selectToken"]} selectToken @returns {Component<ContributionItem>} */
function createContributionRow(token, selectToken) {
  const bar = h("i", {});
  const product = h("span", { class: "sum" });
  const button = createButton({ class: "term", on: { click: () => selectToken(token) } }, renderToken(token));
  return {
    element: h("li", {}, button, h("span", { class: "track", "aria-hidden": "true" }, bar), product),
    update: ({ contribution: { query_weight, document_weight, contribution }, hue, max, isRequired }) => {
      const title = isRequired ? "Required: click to remove" : "Click to require it";
      setProps(button, { "aria-pressed": String(isRequired), title });
      bar.dataset.hue = hue;
      bar.style.width = `${(100 * contribution) / max}%`;
      setText(product, `${formatWeight(query_weight)} × ${formatWeight(document_weight)} = ${formatWeight(contribution)}`);
    },
  };
}

function createTokenTag(/** @type {string} */ token, /** @type {HitActions["selectToken"]} */ selectToken) {
  const props = { class: "tag", title: "Click to add it to the query", on: { click: () => selectToken(token) } };
  return { element: h("li", {}, createButton(props, renderToken(token))) };
}

/**
 * Renders the score as a line: a part for each token with a color, as long as its contribution, and one for all others.
 * @param {Element} bar @param {Hit} hit @param {GetHue} getHue @param {number} maxScore the score of a full line
 */
export function renderScoreBar(bar, hit, getHue, maxScore) {
  const parts = listParts(hit, getHue).map(({ key, value, hue }) => ({ key, hue, width: `${(100 * value) / maxScore}%` }));
  renderList(bar, parts, getKey, createPart);
}

function listParts(/** @type {Hit} */ hit, /** @type {GetHue} */ getHue) {
  /** @type {ScorePart[]} */
  const all = hit.contributions.map(({ token, contribution }) => ({ key: token, value: contribution, hue: getHue(token) }));
  const parts = all.filter(({ hue }) => hue !== "rest");
  const rest = all.filter(({ hue }) => hue === "rest").reduce((sum, { value }) => sum + value, 0);
  if (rest) parts.push({ key: " rest", value: rest, hue: "rest" });
  if (hit.text_score > 0.005 * hit.score) parts.push({ key: " beside", value: hit.text_score, hue: "beside" });
  return parts;
}

/** @returns {Component<{hue: string, width: string}>} */
function createPart() {
  const element = h("i", {});
  return {
    element,
    update: ({ hue, width }) => {
      element.dataset.hue = hue;
      element.style.width = width;
    },
  };
}

/** A thumbnail, or a placeholder if there is none. @param {string | null} src @param {Props} props others of the image */
export function createThumbnail(src, props = {}) {
  const createPlaceholder = () => h("span", { class: "none" }, createIcon("picture"));
  if (!src) return createPlaceholder();
  const image = h("img", {
    alt: "",
    loading: "lazy",
    decoding: "async",
    ...props,
    src,
    on: { error: () => void image.replaceWith(createPlaceholder()) },
  });
  return image;
}
