// A grid of images: items move to their new places with a short animation, and the arrow keys move the focus.

import { renderList } from "./dom.js";

const LINK_SELECTOR = "li.hit a.name, li.tile:not(.waiting) > a";
const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");
const ANIMATION = { duration: 220, easing: "cubic-bezier(.2,.7,.2,1)" };
/** Distance to the screen beyond which moves aren't animated. */
const ANIMATION_MARGIN_PX = 200;

/** `renderList` with animated moves. @type {typeof renderList} */
export function renderAnimatedList(list, items, getKey, createItem) {
  const oldBoxes = reducedMotion.matches ? new Map() : measureItems(list);
  renderList(list, items, getKey, createItem);
  if (!oldBoxes.size) return;
  for (const item of list.children) {
    const from = oldBoxes.get(item);
    const to = item.getBoundingClientRect();
    if (!from) item.animate([{ opacity: 0 }, { opacity: 1 }], ANIMATION);
    else if (isNearScreen(from) || isNearScreen(to)) animateMove(item, from.left - to.left, from.top - to.top);
  }
}

function measureItems(/** @type {Element} */ list) {
  const boxes = new Map([...list.children].map((item) => [item, item.getBoundingClientRect()]));
  for (const item of list.children) for (const animation of item.getAnimations()) animation.cancel();
  return boxes;
}

function animateMove(/** @type {Element} */ item, /** @type {number} */ x, /** @type {number} */ y) {
  if (Math.abs(x) + Math.abs(y) < 1) return;
  item.animate([{ transform: `translate(${x}px, ${y}px)` }, { transform: "none" }], ANIMATION);
}

const isNearScreen = (/** @type {DOMRect} */ box) =>
  box.bottom > -ANIMATION_MARGIN_PX && box.top < innerHeight + ANIMATION_MARGIN_PX;

/**
 * Moves the focus to the neighbor in the direction of an arrow key; false if there is none.
 * @param {Element} grid @param {string} key
 */
export function moveGridFocus(grid, key) {
  const all = /** @type {NodeListOf<HTMLElement>} */ (grid.querySelectorAll(LINK_SELECTOR));
  const links = [...all].filter((link) => link.checkVisibility());
  const focused = document.activeElement?.closest("[data-id]")?.querySelector("a.name, a.picture:not([tabindex])");
  const index = links.indexOf(/** @type {HTMLElement} */ (focused));
  const target = index < 0 ? links[0] : findNeighbor(links, index, key);
  target?.focus({ preventScroll: true });
  target?.closest("li")?.scrollIntoView({ block: "nearest", behavior: reducedMotion.matches ? "auto" : "smooth" });
  return Boolean(target);
}

/** The next or previous item; above and below, the item of the next row with the nearest center. */
function findNeighbor(/** @type {HTMLElement[]} */ links, /** @type {number} */ index, /** @type {string} */ key) {
  if (key === "ArrowRight") return links[index + 1];
  if (key === "ArrowLeft") return links[index - 1];
  const boxes = links.map((link) => /** @type {Element} */ (link.closest("li")).getBoundingClientRect());
  const { left, width, top } = boxes[index];
  const isBeyond = (/** @type {DOMRect} */ box) => (key === "ArrowDown" ? box.top > top + 4 : box.top < top - 4);
  const getDistance = (/** @type {DOMRect} */ box) =>
    Math.abs(box.top - top) * 3 + Math.abs(box.left + box.width / 2 - left - width / 2);
  const candidates = links.map((link, at) => ({ link, box: boxes[at] })).filter(({ box }) => isBeyond(box));
  return candidates.sort((one, other) => getDistance(one.box) - getDistance(other.box))[0]?.link;
}
