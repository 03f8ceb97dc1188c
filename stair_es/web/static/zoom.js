// A picture on its stage: fully visible at first; zoomed and moved with the wheel, keys, the mouse and fingers.

const MOST = 8;
const STEP = 1.4;
const WORTH = 1.2;
const TAP_PX = 8;
const TAP_MS = 320;
const SWIPE_PX = 48;

/**
 * Makes `canvas`, which has the size of the whole picture, zoomable on `stage`. `act.full()` is the factor at which a pixel of
 * the picture is a pixel of the page. `act.swiped(by)` is called for a swipe to the next (1) or previous (-1) picture, and
 * `act.zoomed(factor)` for each change.
 */
export function zoomable(stage, canvas, act) {
  const fingers = new Map(); // id of a pointer -> its position relative to the center of the stage
  let scale = 1;
  let x = 0;
  let y = 0;
  let gesture = null;
  let tapped = 0;

  function draw() {
    const roomX = Math.max(0, (canvas.offsetWidth * scale - stage.clientWidth) / 2);
    const roomY = Math.max(0, (canvas.offsetHeight * scale - stage.clientHeight) / 2);
    x = Math.max(-roomX, Math.min(roomX, x));
    y = Math.max(-roomY, Math.min(roomY, y));
    canvas.style.transform = scale > 1 ? `translate(${x}px, ${y}px) scale(${scale})` : "";
    stage.classList.toggle("zoomed", scale > 1);
    act.zoomed(scale);
  }

  /** Zooms to a factor; the point `at` stays where it is. */
  function to(factor, at = { x: 0, y: 0 }) {
    const next = Math.max(1, Math.min(Math.max(MOST, act.full()), factor));
    x = at.x - ((at.x - x) * next) / scale;
    y = at.y - ((at.y - y) * next) / scale;
    scale = next < 1.01 ? 1 : next;
    draw();
  }

  /** Toggles between the whole picture and its full resolution, or else filling the stage, or else twice the size. */
  function toggle(at) {
    const fill = Math.max(stage.clientWidth / canvas.offsetWidth, stage.clientHeight / canvas.offsetHeight);
    const large = [act.full(), fill].find((factor) => Number.isFinite(factor) && factor > WORTH) ?? 2;
    to(scale > 1 ? 1 : large, at);
  }

  function move(byX, byY) {
    x += byX;
    y += byY;
    draw();
  }

  const placeOf = (event) => {
    const { left, top, width, height } = stage.getBoundingClientRect();
    return { x: event.clientX - left - width / 2, y: event.clientY - top - height / 2 };
  };

  stage.addEventListener("pointerdown", (event) => {
    if (event.button || event.target.closest("button")) return;
    if (fingers.size === 0) gesture = { from: placeOf(event), touch: event.pointerType !== "mouse", pinched: false };
    else gesture.pinched = true;
    fingers.set(event.pointerId, placeOf(event));
    stage.setPointerCapture(event.pointerId);
  });

  stage.addEventListener("pointermove", (event) => {
    const old = fingers.get(event.pointerId);
    if (!old) return;
    const now = placeOf(event);
    const [other] = [...fingers].filter(([id]) => id !== event.pointerId).map(([, place]) => place);
    fingers.set(event.pointerId, now);
    if (other) to((scale * distance(now, other)) / Math.max(1, distance(old, other)), middle(now, other));
    if (scale > 1) move((now.x - old.x) / fingers.size, (now.y - old.y) / fingers.size);
    else if (gesture.touch && !gesture.pinched) canvas.style.transform = `translateX(${now.x - gesture.from.x}px)`;
  });

  function end(event) {
    if (!fingers.delete(event.pointerId) || fingers.size) return;
    const { from, touch, pinched } = gesture;
    const by = { x: placeOf(event).x - from.x, y: placeOf(event).y - from.y };
    draw();
    if (pinched || event.type === "pointercancel") return;
    if (Math.hypot(by.x, by.y) < TAP_PX) return tap(touch, from, event.timeStamp);
    if (touch && scale === 1 && Math.abs(by.x) > SWIPE_PX && Math.abs(by.x) > 1.5 * Math.abs(by.y)) act.swiped(by.x < 0 ? 1 : -1);
  }

  /** A click zooms; with a finger, a double tap does. */
  function tap(touch, at, time) {
    if (touch && time - tapped > TAP_MS) tapped = time;
    else toggle(at);
  }

  stage.addEventListener("pointerup", end);
  stage.addEventListener("pointercancel", end);
  stage.addEventListener(
    "wheel",
    (event) => {
      if (scale === 1 && !event.ctrlKey && document.fullscreenElement !== stage) return; // the page scrolls
      event.preventDefault();
      to(scale * 2 ** (-event.deltaY / 240), placeOf(event));
    },
    { passive: false },
  );
  new ResizeObserver(draw).observe(stage);

  return { toggle, move, reset: () => to(1), step: (by) => to(scale * STEP ** by), zoomed: () => scale > 1 };
}

const distance = (one, other) => Math.hypot(one.x - other.x, one.y - other.y);
const middle = (one, other) => ({ x: (one.x + other.x) / 2, y: (one.y + other.y) / 2 });
