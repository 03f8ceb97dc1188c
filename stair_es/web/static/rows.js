// Rows of the gallery for cases in which CSS alone leaves gaps: a few images share the width, and an unfilled last row is held back.

/** Maximum number of images laid out here, by trying all ways. */
const FEW = 8;
/** The height of a row of a few images: the target, also relative to the width, and the limits. */
const SOUGHT_PX = 200;
const SOUGHT_PART = 0.4;
const TALLEST_PX = 260;

/** Keeps the rows of a gallery. `show(more)` is called when its images have changed, `more` if others will follow. */
export function rowsOf(list) {
  let width = 0;
  let more = false;
  let waiting = [];

  function draw() {
    const tiles = [...list.children];
    const few = tiles.length > 0 && tiles.length <= FEW && !more;
    for (const tile of tiles.slice(0, FEW)) Object.assign(tile.style, { flex: "", maxWidth: "", marginInlineEnd: "" });
    const gallery = list.classList.contains("gallery");
    if (few && gallery && width) spread(tiles, width, parseFloat(getComputedStyle(list).columnGap) || 0);
    hold(tiles, more && gallery);
  }

  /** Hides the last row until it is complete, unless it has the focus, because further images would move it. */
  function hold(tiles, on) {
    for (const tile of waiting) tile.classList.remove("waiting");
    const top = on && tiles.at(-1)?.offsetTop;
    const first = on ? tiles.findLastIndex((tile) => tile.offsetTop !== top) + 1 : 0;
    waiting = first ? tiles.slice(first) : []; // a single row isn't held back
    if (waiting.some((tile) => tile.contains(document.activeElement))) waiting = [];
    for (const tile of waiting) tile.classList.add("waiting");
  }

  function show(next) {
    more = next;
    width = list.clientWidth;
    draw();
  }

  new ResizeObserver(() => list.clientWidth === width || show(more)).observe(list);
  return { show };
}

/** Gives a few tiles their widths: of all ways to break them into rows, the one whose heights are closest to the target. */
function spread(tiles, width, gap) {
  const ratios = tiles.map((tile) => Number(tile.style.getPropertyValue("--ratio")) || 1);
  const sought = Math.min(SOUGHT_PX, SOUGHT_PART * width);
  let best = { cost: Infinity };
  for (let breaks = 0; breaks < 2 ** (tiles.length - 1); breaks += 1) {
    const rows = broken(ratios, breaks).map((row) => ({ row, height: heightOf(row, width, gap) }));
    const cost = rows.reduce((sum, { row, height }) => sum + row.length * Math.log(height / sought) ** 2, 0);
    if (cost < best.cost) best = { cost, rows };
  }
  let place = 0;
  for (const { row, height } of best.rows) {
    for (const ratio of row) Object.assign(tiles[place++].style, { flex: `0 0 ${ratio * height - 0.02}px`, maxWidth: "none" });
    const rest = width - row.reduce((sum, ratio) => sum + ratio * height + gap, -gap);
    if (rest > 1) tiles[place - 1].style.marginInlineEnd = `${Math.floor(rest)}px`;
  }
}

/** Rows of the ratios, with a break after each set bit. */
function broken(ratios, breaks) {
  const rows = [[]];
  for (const [place, ratio] of ratios.entries()) {
    rows.at(-1).push(ratio);
    if (breaks & (1 << place)) rows.push([]);
  }
  return rows;
}

const heightOf = (row, width, gap) => {
  const together = row.reduce((sum, ratio) => sum + ratio, 0);
  return Math.min(TALLEST_PX, (width - gap * (row.length - 1)) / together);
};
