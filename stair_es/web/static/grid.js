// A list whose items move to their new places with a short animation, unless the user prefers reduced motion.

import { keyed } from "./dom.js";

const still = matchMedia("(prefers-reduced-motion: reduce)");
const MOVE = { duration: 220, easing: "cubic-bezier(.2,.7,.2,1)" };

/** `keyed` with animated moves. */
export function arrange(list, items, keyOf, make) {
  const before = still.matches ? new Map() : placesOf(list);
  keyed(list, items, keyOf, make);
  if (!before.size) return;
  for (const item of list.children) {
    const from = before.get(item);
    const to = item.getBoundingClientRect();
    if (!from) item.animate([{ opacity: 0 }, { opacity: 1 }], MOVE);
    else if (near(from) || near(to)) slide(item, from.left - to.left, from.top - to.top);
  }
}

function placesOf(list) {
  const places = new Map([...list.children].map((item) => [item, item.getBoundingClientRect()]));
  for (const item of list.children) for (const motion of item.getAnimations()) motion.cancel();
  return places;
}

function slide(item, x, y) {
  if (Math.abs(x) + Math.abs(y) < 1) return;
  item.animate([{ transform: `translate(${x}px, ${y}px)` }, { transform: "none" }], MOVE);
}

/** Whether it is on or near the screen; moves further away aren't animated. */
const near = (place) => place.bottom > -200 && place.top < innerHeight + 200;

const LINKS = "li.hit a.name, li.tile:not(.waiting) > a";

/** Moves the focus from one item's link to that of its neighbor in the direction of an arrow key. */
export function step(place, key) {
  const links = [...place.querySelectorAll(LINKS)];
  const here = document.activeElement?.closest("[data-id]")?.querySelector("a.name, a.picture:not([tabindex])");
  const goal = links.includes(here) ? nearest(links, here, key) : links[0];
  goal?.focus({ preventScroll: true });
  goal?.closest("li").scrollIntoView({ block: "nearest", behavior: still.matches ? "auto" : "smooth" });
  return Boolean(goal);
}

/** The next or previous item; above and below, the item of the next row with the nearest center. */
function nearest(links, here, key) {
  const place = links.indexOf(here);
  if (key === "ArrowRight") return links[place + 1];
  if (key === "ArrowLeft") return links[place - 1];
  const down = key === "ArrowDown";
  const boxes = new Map(links.map((link) => [link, link.closest("li").getBoundingClientRect()]));
  const { left, width, top } = boxes.get(here);
  const there = links.filter((link) => (down ? boxes.get(link).top > top + 4 : boxes.get(link).top < top - 4));
  const middle = ({ left: x, width: w }) => Math.abs(x + w / 2 - left - width / 2);
  const distance = (link) => Math.abs(boxes.get(link).top - top) * 3 + middle(boxes.get(link));
  return there.sort((one, other) => distance(one) - distance(other))[0];
}
