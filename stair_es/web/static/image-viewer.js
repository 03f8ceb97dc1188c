// The picture of an image, as large as the page allows: the thumbnail at once, the original when it is loaded.

import { createButton, createIcon, escapeControls, h, setProps, setText } from "./dom.js";
import { formatCount } from "./format.js";
import { Zoom } from "./zoom.js";

/** How far a thumbnail is enlarged. */
const MAX_ENLARGEMENT = 2;
const MIN_WIDTH_PX = 64;
const MAX_THUMBNAIL_PX = 640;
const PAN_PX = 90;
const MAX_ALT_CHARS = 300;
/** @type {Record<string, [x: number, y: number]>} */
const PAN_DIRECTIONS = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

export class ImageViewer {
  #imageId = "";
  /** Width in pixels of the best loaded picture. */
  #loadedWidth = 0;
  #hasSize = false;
  #scale = 1;

  /** @param {ImageViewerOptions} options */
  constructor({ onStep, onLoad }) {
    this.onLoad = onLoad;
    this.boxes = h("div", { class: "boxes", "aria-hidden": "true" });
    this.canvas = h("div", { class: "canvas" }, this.boxes);
    this.previous = createControl("previous", "Previous image", "Previous image (←)", "previous", () => onStep(-1));
    this.next = createControl("next", "Next image", "Next image (→)", "next", () => onStep(1));
    this.position = h("p", { class: "position" });
    this.percent = h("output", { class: "percent" });
    this.zoomOut = createControl("out", "Zoom out", "Zoom out (-)", "minus", () => this.zoom.zoomBy(-1));
    const zoomIn = createControl("into", "Zoom in", "Zoom in (+)", "plus", () => this.zoom.zoomBy(1));
    const hint = "Enlarge, or show the whole image (z)";
    this.enlarge = createControl("size", "Enlarge", hint, "resize", () => this.zoom.toggle());
    const fullScreen = createControl("full", "Full screen", "Full screen (f)", "expand", () => this.toggleFullScreen());
    fullScreen.hidden = !document.fullscreenEnabled;
    const tools = { class: "zoom", role: "group", "aria-label": "Zoom" };
    this.tools = h("div", tools, this.percent, this.zoomOut, zoomIn, this.enlarge, fullScreen);
    const content = [this.canvas, this.previous, this.next, this.position, this.tools];
    this.element = h("figure", { "aria-label": "Image" }, content);
    this.zoom = new Zoom(this.element, this.canvas, {
      getFullScale: () => (this.canvas.offsetWidth ? this.#loadedWidth / this.canvas.offsetWidth : 1),
      onSwipe: onStep,
      onZoom: (scale) => this.#renderZoom(scale),
    });
  }

  /** Shows an image: first with the facts from a list, and again when all are loaded. @param {ViewedImage} image */
  show({ id, name, caption, thumbnail, original, width, height, found = [] }) {
    const alt = escapeControls(caption || name || "").slice(0, MAX_ALT_CHARS);
    if (this.#imageId !== id) this.#clear(id);
    if (width && height) this.#setSize(width, height, original === null ? MAX_THUMBNAIL_PX : Infinity);
    const best = original ?? thumbnail;
    this.boxes.replaceChildren(...found.flatMap(({ box }) => (box ? [createBox(box)] : [])));
    if (thumbnail && (best === thumbnail || this.boxes === this.canvas.firstChild))
      this.#addPicture(thumbnail, alt, original === null);
    if (original) this.#addPicture(original, alt, true);
    this.tools.hidden = !best;
    if (best || original === undefined) return;
    this.canvas.replaceChildren(createMessage("No picture is stored."));
    this.onLoad();
  }

  /**
   * Shows its position among the hits: `index` is -1 if it isn't a hit.
   * @param {number} index @param {number} count @param {number} total
   */
  showPosition(index, count, total) {
    const isHit = index >= 0;
    for (const control of [this.previous, this.next, this.position]) control.hidden = !isHit;
    setProps(this.previous, { "aria-disabled": String(index === 0) });
    setProps(this.next, { "aria-disabled": String(index === count - 1 && total <= count) });
    setText(this.position, isHit ? `${formatCount(index + 1)} of ${formatCount(total)}` : "");
  }

  /** Moves a zoomed picture by an arrow key; false if it isn't zoomed. @param {string} key */
  pan(key) {
    const [x, y] = PAN_DIRECTIONS[key];
    if (this.zoom.isZoomed()) this.zoom.move(x * PAN_PX, y * PAN_PX);
    return this.zoom.isZoomed();
  }

  toggleFullScreen() {
    if (document.fullscreenElement) document.exitFullscreen();
    else this.element.requestFullscreen?.().catch(() => {});
  }

  #clear(/** @type {string} */ id) {
    this.#imageId = id;
    this.boxes.replaceChildren();
    this.canvas.replaceChildren(this.boxes);
    this.zoom.reset();
    this.#loadedWidth = 0;
    this.#hasSize = false;
  }

  /** Puts a picture above the existing ones, which are removed when it is loaded. */
  #addPicture(/** @type {string} */ src, /** @type {string} */ alt, /** @type {boolean} */ isBest) {
    const images = [...this.canvas.children].filter((child) => child instanceof HTMLImageElement);
    const existing = images.find((image) => image.getAttribute("src") === src);
    if (existing) {
      if (isBest) this.#markBest(existing);
      return;
    }
    const image = h("img", { src, alt, draggable: "false", decoding: "async" });
    image.addEventListener("load", () => image.isConnected && this.#replaceOthers(image));
    image.addEventListener("error", () => image.isConnected && this.#removePicture(image));
    if (isBest) image.dataset.last = "yes";
    this.boxes.before(image);
  }

  #replaceOthers(/** @type {HTMLImageElement} */ image) {
    if (!this.#hasSize) this.#setSize(image.naturalWidth, image.naturalHeight, Infinity);
    this.#loadedWidth = image.naturalWidth;
    while (image.previousSibling) image.previousSibling.remove();
    this.#renderZoom(this.#scale);
    if (image.dataset.last) this.onLoad();
  }

  #removePicture(/** @type {HTMLImageElement} */ image) {
    if (image === this.canvas.firstChild && image.nextSibling === this.boxes)
      image.replaceWith(createMessage("The picture can't be shown."));
    else image.remove();
    this.onLoad();
  }

  #markBest(/** @type {HTMLImageElement} */ image) {
    image.dataset.last = "yes";
    if (image.complete) this.onLoad();
  }

  /** The size of the picture: fully visible, and only slightly enlarged. */
  #setSize(/** @type {number} */ width, /** @type {number} */ height, /** @type {number} */ maxPx) {
    const enlarged = MAX_ENLARGEMENT * Math.max(width, MIN_WIDTH_PX);
    const maxWidth = Math.min(enlarged, (maxPx * width) / Math.max(width, height));
    this.#hasSize = true;
    this.canvas.style.aspectRatio = `${width} / ${height}`;
    this.canvas.style.width = `min(100cqw, ${(100 * width) / height}cqh, ${maxWidth}px)`;
  }

  #renderZoom(/** @type {number} */ scale) {
    const width = this.canvas.offsetWidth;
    const percent = this.#loadedWidth && width ? Math.round((100 * scale * width) / this.#loadedWidth) : 0;
    this.#scale = scale;
    setText(this.percent, scale > 1 && percent ? `${percent} %` : "");
    setProps(this.enlarge, { "aria-pressed": String(scale > 1) });
    setProps(this.zoomOut, { "aria-disabled": String(scale === 1) });
  }
}

/**
 * @param {string} className @param {string} label @param {string} title @param {import("./dom.js").IconName} icon
 * @param {() => void} onClick
 */
const createControl = (className, label, title, icon, onClick) =>
  createButton({ class: `icon ${className}`, "aria-label": label, title, on: { click: onClick } }, createIcon(icon));

/** A frame around a line of text. @param {[number, number, number, number]} box */
function createBox([left, upper, right, lower]) {
  const element = h("i", {});
  const edges = { left, top: upper, right: 1 - right, bottom: 1 - lower };
  for (const [edge, share] of Object.entries(edges)) element.style.setProperty(edge, `${100 * share}%`);
  return element;
}

const createMessage = (/** @type {string} */ text) => h("p", { class: "none" }, createIcon("picture"), text);
