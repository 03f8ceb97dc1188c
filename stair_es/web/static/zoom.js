// Zoom of a picture: fully visible at first; zoomed and moved with the wheel, keys, the mouse and fingers.

const MAX_SCALE = 8;
const SCALE_STEP = 1.4;
/** The least enlargement that is worth a click. */
const MIN_ENLARGEMENT = 1.2;
const WHEEL_PX_PER_DOUBLING = 240;
const TAP_PX = 8;
const DOUBLE_TAP_MS = 320;
const SWIPE_PX = 48;

/** Makes `canvas`, which has the size of the whole picture, zoomable on `stage`. */
export class Zoom {
  #scale = 1;
  #offset = { x: 0, y: 0 };
  /** The positions of the pointers that are down. @type {Map<number, Point>} */
  #pointers = new Map();
  #gesture = { from: { x: 0, y: 0 }, isTouch: false, isPinch: false };
  #lastTapMs = 0;

  /** @param {HTMLElement} stage @param {HTMLElement} canvas @param {ZoomOptions} options */
  constructor(stage, canvas, options) {
    this.stage = stage;
    this.canvas = canvas;
    this.options = options;
    stage.addEventListener("pointerdown", (event) => this.#startGesture(event));
    stage.addEventListener("pointermove", (event) => this.#moveGesture(event));
    stage.addEventListener("pointerup", (event) => this.#endGesture(event));
    stage.addEventListener("pointercancel", (event) => this.#endGesture(event));
    stage.addEventListener("wheel", (event) => this.#zoomByWheel(event), { passive: false });
    new ResizeObserver(() => this.#render()).observe(stage);
  }

  isZoomed() {
    return this.#scale > 1;
  }

  reset() {
    this.#zoomTo(1);
  }

  /** Zooms in (1) or out (-1). @param {number} step */
  zoomBy(step) {
    this.#zoomTo(this.#scale * SCALE_STEP ** step);
  }

  /**
   * Toggles between the whole picture and its full resolution, or else filling the stage, or else twice the size.
   * @param {Point} [center]
   */
  toggle(center) {
    const { stage, canvas } = this;
    const fillScale = Math.max(stage.clientWidth / canvas.offsetWidth, stage.clientHeight / canvas.offsetHeight);
    const isWorthwhile = (/** @type {number} */ scale) => Number.isFinite(scale) && scale > MIN_ENLARGEMENT;
    const enlarged = [this.options.getFullScale(), fillScale].find(isWorthwhile) ?? 2;
    this.#zoomTo(this.isZoomed() ? 1 : enlarged, center);
  }

  /** @param {number} x @param {number} y */
  move(x, y) {
    this.#offset = { x: this.#offset.x + x, y: this.#offset.y + y };
    this.#render();
  }

  /** Zooms to a scale; the point `center` stays where it is. */
  #zoomTo(/** @type {number} */ requested, { x, y } = { x: 0, y: 0 }) {
    const scale = Math.max(1, Math.min(Math.max(MAX_SCALE, this.options.getFullScale()), requested));
    const ratio = scale / this.#scale;
    this.#offset = { x: x - (x - this.#offset.x) * ratio, y: y - (y - this.#offset.y) * ratio };
    this.#scale = scale < 1.01 ? 1 : scale;
    this.#render();
  }

  #render() {
    const { stage, canvas } = this;
    const scale = this.#scale;
    const maxX = Math.max(0, (canvas.offsetWidth * scale - stage.clientWidth) / 2);
    const maxY = Math.max(0, (canvas.offsetHeight * scale - stage.clientHeight) / 2);
    const x = Math.max(-maxX, Math.min(maxX, this.#offset.x));
    const y = Math.max(-maxY, Math.min(maxY, this.#offset.y));
    this.#offset = { x, y };
    canvas.style.transform = scale > 1 ? `translate(${x}px, ${y}px) scale(${scale})` : "";
    stage.classList.toggle("zoomed", scale > 1);
    this.options.onZoom(scale);
  }

  /** The position of a pointer relative to the center of the stage. @returns {Point} */
  #getPoint(/** @type {MouseEvent} */ event) {
    const { left, top, width, height } = this.stage.getBoundingClientRect();
    return { x: event.clientX - left - width / 2, y: event.clientY - top - height / 2 };
  }

  #startGesture(/** @type {PointerEvent} */ event) {
    if (event.button || /** @type {Element} */ (event.target).closest("button")) return;
    const point = this.#getPoint(event);
    if (this.#pointers.size) this.#gesture.isPinch = true;
    else this.#gesture = { from: point, isTouch: event.pointerType !== "mouse", isPinch: false };
    this.#pointers.set(event.pointerId, point);
    this.stage.setPointerCapture(event.pointerId);
  }

  #moveGesture(/** @type {PointerEvent} */ event) {
    const old = this.#pointers.get(event.pointerId);
    if (!old) return;
    const point = this.#getPoint(event);
    const { from, isTouch, isPinch } = this.#gesture;
    const [other] = [...this.#pointers].filter(([id]) => id !== event.pointerId).map(([, each]) => each);
    this.#pointers.set(event.pointerId, point);
    if (other) {
      const pinchRatio = getDistance(point, other) / Math.max(1, getDistance(old, other));
      this.#zoomTo(this.#scale * pinchRatio, { x: (point.x + other.x) / 2, y: (point.y + other.y) / 2 });
    }
    if (this.isZoomed()) this.move((point.x - old.x) / this.#pointers.size, (point.y - old.y) / this.#pointers.size);
    else if (isTouch && !isPinch) this.canvas.style.transform = `translateX(${point.x - from.x}px)`;
  }

  #endGesture(/** @type {PointerEvent} */ event) {
    if (!this.#pointers.delete(event.pointerId) || this.#pointers.size) return;
    const { from, isTouch, isPinch } = this.#gesture;
    const point = this.#getPoint(event);
    const [x, y] = [point.x - from.x, point.y - from.y];
    this.#render();
    if (isPinch || event.type === "pointercancel") return;
    if (Math.hypot(x, y) < TAP_PX) this.#tap(event.timeStamp);
    else if (isTouch && !this.isZoomed() && Math.abs(x) > SWIPE_PX && Math.abs(x) > 1.5 * Math.abs(y))
      this.options.onSwipe(x < 0 ? 1 : -1);
  }

  /** A click zooms; with a finger, a double tap does. */
  #tap(/** @type {number} */ timeMs) {
    const { from, isTouch } = this.#gesture;
    if (isTouch && timeMs - this.#lastTapMs > DOUBLE_TAP_MS) this.#lastTapMs = timeMs;
    else this.toggle(from);
  }

  #zoomByWheel(/** @type {WheelEvent} */ event) {
    const isFullScreen = document.fullscreenElement === this.stage;
    if (!this.isZoomed() && !event.ctrlKey && !isFullScreen) return; // the page scrolls
    event.preventDefault();
    this.#zoomTo(this.#scale * 2 ** (-event.deltaY / WHEEL_PX_PER_DOUBLING), this.#getPoint(event));
  }
}

const getDistance = (/** @type {Point} */ one, /** @type {Point} */ other) => Math.hypot(one.x - other.x, one.y - other.y);
