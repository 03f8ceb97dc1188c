// The query, token by token: a slider for each weight, and other actions for a token.

import { createButton, createIconButton, h, renderList, setProps, setText } from "./dom.js";
import {
  assignHues,
  formatFactor,
  formatToken,
  formatWeight,
  getToken,
  pluralize,
  renderToken,
  sortQueryTokens,
} from "./format.js";
import { ADDED_WEIGHT, resetTokens, setFactor, toggleExcluded, toggleRequired } from "./query.js";

const SHOWN_TOKEN_COUNT = 8;
const MAX_FACTOR = 3;
/** A smaller change from the server doesn't move the slider that the user is dragging. */
const SLIDER_TOLERANCE = 0.6;

/** @param {UpdateQuery} updateQuery @returns {{element: HTMLElement, update: (state: PanelState) => void}} */
export function createWeightsPanel(updateQuery) {
  const parts = createParts(updateQuery);
  let isExpanded = false;
  /** @type {PanelState} */
  let current;
  const update = (/** @type {PanelState} */ state) => {
    current = state;
    renderPanel(parts, state, isExpanded, updateQuery);
  };
  parts.expander.addEventListener("click", () => {
    isExpanded = !isExpanded;
    update(current);
  });
  return { element: parts.element, update };
}

function createParts(/** @type {UpdateQuery} */ updateQuery) {
  const count = h("span", { class: "count" });
  const reset = createButton({ class: "quiet", on: { click: () => updateQuery(resetTokens) } }, "reset");
  const rows = h("ul", { class: "weights", "aria-label": "Words of the query" });
  const expander = createButton({ class: "quiet more" });
  const hint = h("p", { class: "hint" });
  const excluded = h("ul", { class: "chips", "aria-label": "Excluded words" });
  const title = h("div", { class: "title" }, h("h2", { id: "query-title" }, "Query"), count, reset);
  const props = { class: "query", "aria-labelledby": "query-title" };
  const element = h("section", props, title, rows, hint, expander, excluded);
  return { element, count, reset, rows, expander, hint, excluded };
}

/**
 * @param {ReturnType<typeof createParts>} parts @param {PanelState} state @param {boolean} isExpanded
 * @param {UpdateQuery} updateQuery
 */
function renderPanel(parts, state, isExpanded, updateQuery) {
  const { query, response } = state;
  const items = listTokenItems(state);
  const tokens = items.filter(({ isRequiredOnly }) => !isRequiredOnly);
  const isChanged = (/** @type {TokenItem} */ item) => item.factor !== 1 || item.isAdded || item.isRequired;
  const shown = isExpanded ? items : items.filter((item, index) => index < SHOWN_TOKEN_COUNT || isChanged(item));
  const hiddenCount = items.length - shown.length;
  const hint = response?.method === "text" ? "The text is compared with the captions: there are no weights to adjust." : "";
  setText(parts.count, tokens.length ? pluralize(tokens.length, "word") : "");
  parts.hint.hidden = tokens.length > 0;
  setText(parts.hint, hint);
  parts.reset.hidden = !(query.factors.size || query.require.length || query.exclude.length);
  renderList(parts.rows, shown, getToken, ({ token }) => createTokenRow(token, updateQuery));
  parts.expander.hidden = tokens.length <= SHOWN_TOKEN_COUNT || (!isExpanded && !hiddenCount);
  setText(parts.expander, isExpanded ? "fewer words" : `all ${tokens.length} words`);
  setProps(parts.expander, { "aria-expanded": String(isExpanded) });
  const excluded = response?.excluded ?? [];
  const chips = excluded.map((token) => ({ token }));
  renderList(parts.excluded, chips, getToken, ({ token }) => createExcludedChip(token, updateQuery));
  parts.excluded.hidden = !excluded.length;
}

/** The tokens of the query, then those that are only required. @returns {TokenItem[]} */
function listTokenItems(/** @type {PanelState} */ { response, query, answeredQuery }) {
  const tokens = sortQueryTokens(response?.query ?? []);
  const required = new Set(response?.required ?? []);
  const getHue = assignHues(tokens.map(({ token }) => token));
  const getFactor = (/** @type {QueryToken} */ { token, factor, added }) =>
    query.factors.get(token) ?? (answeredQuery.factors.has(token) && !added ? 1 : factor);
  const items = tokens.map((queryToken) => {
    const { token, weight, added = false } = queryToken;
    const factor = getFactor(queryToken);
    return { token, weight, factor, isAdded: added, isRequired: required.has(token), isRequiredOnly: false, hue: getHue(token) };
  });
  const others = [...required].filter((token) => !tokens.some((each) => each.token === token));
  const flags = { isAdded: false, isRequired: true, isRequiredOnly: true };
  return [...items, ...others.map((token) => ({ token, weight: 0, factor: 0, ...flags, hue: getHue(token) }))];
}

/** @param {string} token @param {UpdateQuery} updateQuery @returns {Component<TokenItem>} */
function createTokenRow(token, updateQuery) {
  const label = formatToken(token);
  const value = h("output", { class: "value" });
  const sliderLabel = `Weight of ${label}`;
  const slider = h("input", { type: "range", min: 0, max: MAX_FACTOR, step: 0.05, "aria-label": sliderLabel });
  /** @type {TokenItem} */
  let current;
  const actions = createTokenActions(token, label, updateQuery, () => current);
  slider.addEventListener("input", () =>
    updateQuery((query) => setFactor(query, token, Number(slider.value)), `weight of ${token}`),
  );
  slider.addEventListener("dblclick", () => updateQuery((query) => setFactor(query, token, null)));
  const keys = h("span", { class: "keys", role: "group", "aria-label": `Actions for ${label}` }, Object.values(actions));
  const element = h(
    "li",
    { class: "weight" },
    h("span", { class: "swatch", "aria-hidden": "true" }),
    h("span", { class: "label" }, renderToken(token)),
    value,
    h("div", { class: "control" }, slider, keys),
  );
  const update = (/** @type {TokenItem} */ item) => {
    current = item;
    element.dataset.hue = item.hue;
    element.classList.toggle("muted", item.factor === 0 && !item.isRequiredOnly);
    setText(value, formatItemWeight(item));
    renderSlider(slider, item);
    renderTokenActions(actions, item);
  };
  return { element, update };
}

/** @param {string} token @param {string} label @param {UpdateQuery} updateQuery @param {() => TokenItem} getItem */
function createTokenActions(token, label, updateQuery, getItem) {
  const createKey = (/** @type {string} */ text, /** @type {string} */ title, /** @type {() => void} */ onClick) =>
    createButton({ class: "key", "aria-label": `${text}: ${label}`, title, on: { click: onClick } }, text);
  const change = (/** @type {number | null} */ factor) => updateQuery((query) => setFactor(query, token, factor));
  return {
    mute: createKey("mute", "Mute", () => change(getItem().factor ? 0 : getItem().isAdded ? ADDED_WEIGHT : 1)),
    require: createKey("must", "Require", () => updateQuery((query) => toggleRequired(query, token, getItem().isRequired))),
    exclude: createKey("not", "Exclude", () =>
      updateQuery((query) => {
        const factor = getItem().isAdded ? null : (query.factors.get(token) ?? null);
        return toggleExcluded(setFactor(query, token, factor), token, false);
      }),
    ),
    boost: createKey("×2", "Boost", () => change(getItem().factor === 2 ? null : 2)),
    remove: createKey("drop", "Remove", () => updateQuery((query) => toggleRequired(setFactor(query, token, null), token, true))),
  };
}

function renderSlider(
  /** @type {HTMLInputElement} */ slider,
  /** @type {TokenItem} */ { weight, factor, isAdded, isRequiredOnly },
) {
  const isDragged = document.activeElement === slider && Math.abs(Number(slider.value) - factor) <= SLIDER_TOLERANCE;
  slider.hidden = isRequiredOnly;
  if (!isDragged) slider.value = String(factor);
  slider.style.setProperty("--at", `${(100 * Math.min(factor, MAX_FACTOR)) / MAX_FACTOR}%`);
  const times = isAdded ? "" : `times ${formatFactor(factor)}, `;
  setProps(slider, { "aria-valuetext": `${times}weight ${formatWeight(weight * factor)}` });
}

function renderTokenActions(/** @type {ReturnType<typeof createTokenActions>} */ actions, /** @type {TokenItem} */ item) {
  const { mute, require, exclude, boost, remove } = actions;
  setProps(mute, { "aria-pressed": String(item.factor === 0) });
  setProps(require, { "aria-pressed": String(item.isRequired) });
  setProps(boost, { "aria-pressed": String(item.factor === 2) });
  for (const button of [mute, boost, require]) button.hidden = item.isRequiredOnly;
  remove.hidden = !item.isAdded && !item.isRequiredOnly;
  exclude.hidden = !remove.hidden;
}

function formatItemWeight(/** @type {TokenItem} */ { weight, factor, isAdded, isRequiredOnly }) {
  if (isRequiredOnly) return "required";
  if (isAdded) return `+ ${formatWeight(factor)}`;
  if (factor === 1) return formatWeight(weight);
  return `${formatWeight(weight)} × ${formatFactor(factor)} = ${formatWeight(weight * factor)}`;
}

function createExcludedChip(/** @type {string} */ token, /** @type {UpdateQuery} */ updateQuery) {
  const allow = () => updateQuery((query) => toggleExcluded(query, token, true));
  const props = { title: "Allow again", on: { click: allow } };
  const button = createIconButton("close", `Allow ${formatToken(token)} again`, props);
  return { element: h("li", { class: "chip not" }, h("span", {}, "not ", renderToken(token)), button) };
}
