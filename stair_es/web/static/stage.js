// The picture of an image, as large as the page allows: the thumbnail at once, the original when it is loaded.

import { h, icon, say, set, visible } from "./dom.js";
import { zoomable } from "./zoom.js";

const MOST_BLOWN_UP = 2;
const PAN_PX = 90;

/** The stage. `act.step(by)` goes to another picture; `act.loaded()` is called when the best available picture is loaded. */
export function stage(act) {
  const canvas = h("div", { class: "canvas" });
  const button = (name, label, title, press, drawing) =>
    h("button", { type: "button", class: `icon ${name}`, "aria-label": label, title, on: { click: press } }, icon(drawing));
  const previous = button("previous", "Previous image", "Previous image (←)", () => act.step(-1), "before");
  const next = button("next", "Next image", "Next image (→)", () => act.step(1), "after");
  const position = h("p", { class: "position" });
  const percent = h("output", { class: "percent" });
  const out = button("out", "Zoom out", "Zoom out (-)", () => zoom.step(-1), "minus");
  const into = button("into", "Zoom in", "Zoom in (+)", () => zoom.step(1), "plus");
  const size = button("size", "Enlarge", "Enlarge, or show the whole image (z)", () => zoom.toggle(), "actual");
  const full = button("full", "Full screen", "Full screen (f)", toggleFull, "expand");
  const tools = h("div", { class: "zoom", role: "group", "aria-label": "Zoom" }, percent, out, into, size, full);
  const element = h("figure", { "aria-label": "Image" }, canvas, previous, next, position, tools);
  const zoom = zoomable(element, canvas, {
    full: () => (canvas.offsetWidth ? known / canvas.offsetWidth : 1),
    swiped: (by) => act.step(by),
    zoomed: drawZoom,
  });
  let known = 0; // width in pixels of the best loaded picture
  let fitted = false;
  let shown = "";
  let factor = 1;

  /** Shows an image: first with the facts from a list, and again when all are loaded. */
  function show({ id, name, caption, thumbnail, original, width, height }) {
    const alt = visible(caption || name || "").slice(0, 300);
    if (shown !== id) {
      shown = id;
      canvas.replaceChildren();
      zoom.reset();
      known = 0;
      fitted = false;
    }
    if (width && height) fit(width, height, original === null ? 640 : Infinity);
    const best = original ?? thumbnail;
    if (thumbnail && (best === thumbnail || !canvas.children.length)) add(thumbnail, alt, original === null);
    if (original) add(original, alt, true);
    tools.hidden = !best;
    if (best || original === undefined) return;
    canvas.replaceChildren(h("p", { class: "none" }, icon("picture"), "No picture is stored."));
    act.loaded();
  }

  /** Puts a picture above the existing ones, which are removed when it is loaded. */
  function add(address, alt, last) {
    if ([...canvas.children].some((image) => image.getAttribute("src") === address)) return last && settle(address);
    const image = h("img", { src: address, alt, draggable: "false", decoding: "async" });
    image.addEventListener("load", () => {
      if (!image.isConnected) return;
      if (!fitted) fit(image.naturalWidth, image.naturalHeight, Infinity);
      known = image.naturalWidth;
      while (image.previousSibling) image.previousSibling.remove();
      drawZoom(factor);
      if (image.dataset.last) act.loaded();
    });
    image.addEventListener("error", () => {
      if (!image.isConnected) return;
      if (canvas.children.length === 1) image.replaceWith(h("p", { class: "none" }, icon("picture"), "The picture can't be shown."));
      else image.remove();
      act.loaded();
    });
    if (last) image.dataset.last = "yes";
    canvas.append(image);
  }

  function settle(address) {
    const image = [...canvas.children].find((one) => one.getAttribute("src") === address);
    image.dataset.last = "yes";
    if (image.complete) act.loaded();
  }

  /** The position of the picture: fully visible, and only slightly enlarged. */
  function fit(width, height, most) {
    fitted = true;
    const blown = Math.min(MOST_BLOWN_UP * Math.max(width, 64), (most * width) / Math.max(width, height));
    canvas.style.aspectRatio = `${width} / ${height}`;
    canvas.style.width = `min(100cqw, ${(100 * width) / height}cqh${blown < Infinity ? `, ${blown}px` : ""})`;
  }

  function drawZoom(scale) {
    factor = scale;
    const part = known && canvas.offsetWidth ? Math.round((100 * scale * canvas.offsetWidth) / known) : 0;
    say(percent, scale > 1 && part ? `${part} %` : "");
    set(size, { "aria-pressed": String(scale > 1) });
    set(out, { "aria-disabled": String(scale === 1) });
  }

  function toggleFull() {
    if (document.fullscreenElement) document.exitFullscreen();
    else element.requestFullscreen?.().catch(() => {});
  }

  /** Shows its position among the hits: `place` starts at 0, -1 if it isn't a hit. */
  function place(place, count, total) {
    const alone = place < 0;
    for (const control of [previous, next, position]) control.hidden = alone;
    set(previous, { "aria-disabled": String(place === 0) });
    set(next, { "aria-disabled": String(place === count - 1 && total <= count) });
    say(position, alone ? "" : `${(place + 1).toLocaleString("en")} of ${total.toLocaleString("en")}`);
  }

  /** An arrow key moves a zoomed picture; false if it isn't zoomed. */
  function pan(key) {
    const [x, y] = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[key];
    if (zoom.zoomed()) zoom.move(x * PAN_PX, y * PAN_PX);
    return zoom.zoomed();
  }

  full.hidden = !document.fullscreenEnabled;
  return { element, show, place, pan, zoom, toggleFull, position: () => position.textContent };
}
