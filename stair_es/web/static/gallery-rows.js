// Rows of the gallery where CSS alone leaves gaps: a few images share the width, and an unfilled last row is held back.

/** Maximum number of images laid out here, by trying all ways. */
const MAX_SPREAD_TILES = 8;
/** The height of a row of a few images: the target, also relative to the width, and the limit. */
const TARGET_HEIGHT_PX = 200;
const TARGET_HEIGHT_SHARE = 0.4;
const MAX_HEIGHT_PX = 260;

/** Lays out the rows of a gallery. */
export class GalleryRows {
  #width = 0;
  #hasMore = false;
  /** @type {Element[]} */
  #heldBack = [];

  /** @param {HTMLElement} list */
  constructor(list) {
    this.list = list;
    new ResizeObserver(() => list.clientWidth === this.#width || this.update(this.#hasMore)).observe(list);
  }

  /** Lays out changed images. @param {boolean} hasMore whether others will follow */
  update(hasMore) {
    this.#hasMore = hasMore;
    this.#width = this.list.clientWidth;
    const tiles = /** @type {HTMLElement[]} */ ([...this.list.children]);
    const isGallery = this.list.classList.contains("gallery");
    for (const tile of tiles.slice(0, MAX_SPREAD_TILES))
      Object.assign(tile.style, { flex: "", maxWidth: "", marginInlineEnd: "" });
    const isShort = tiles.length > 0 && tiles.length <= MAX_SPREAD_TILES && !hasMore;
    if (isShort && isGallery && this.#width)
      spreadTiles(tiles, this.#width, Number.parseFloat(getComputedStyle(this.list).columnGap) || 0);
    this.#holdBackLastRow(tiles, hasMore && isGallery);
  }

  /** Hides the last row until it is complete, unless it has the focus, because further images would move it. */
  #holdBackLastRow(/** @type {HTMLElement[]} */ tiles, /** @type {boolean} */ isIncomplete) {
    for (const tile of this.#heldBack) tile.classList.remove("waiting");
    const top = isIncomplete && tiles.at(-1)?.offsetTop;
    const start = isIncomplete ? tiles.findLastIndex((tile) => tile.offsetTop !== top) + 1 : 0;
    const lastRow = start ? tiles.slice(start) : []; // a single row isn't held back
    this.#heldBack = lastRow.some((tile) => tile.contains(document.activeElement)) ? [] : lastRow;
    for (const tile of this.#heldBack) tile.classList.add("waiting");
  }
}

/** Gives a few tiles their widths: of all ways to break them into rows, the one whose heights are closest to the target. */
function spreadTiles(/** @type {HTMLElement[]} */ tiles, /** @type {number} */ width, /** @type {number} */ gap) {
  let index = 0;
  for (const { ratios, height } of findBestRows(tiles, width, gap)) {
    for (const ratio of ratios) Object.assign(tiles[index++].style, { flex: `0 0 ${ratio * height - 0.02}px`, maxWidth: "none" });
    const rest = width - ratios.reduce((sum, ratio) => sum + ratio * height + gap, -gap);
    if (rest > 1) tiles[index - 1].style.marginInlineEnd = `${Math.floor(rest)}px`;
  }
}

/** @param {HTMLElement[]} tiles @param {number} width @param {number} gap @returns {{ratios: number[], height: number}[]} */
function findBestRows(tiles, width, gap) {
  const ratios = tiles.map((tile) => Number(tile.style.getPropertyValue("--ratio")) || 1);
  const target = Math.min(TARGET_HEIGHT_PX, TARGET_HEIGHT_SHARE * width);
  const candidates = Array.from({ length: 2 ** (tiles.length - 1) }, (_, breaks) => {
    const rows = breakRows(ratios, breaks).map((row) => ({ ratios: row, height: computeHeight(row, width, gap) }));
    const cost = rows.reduce((sum, row) => sum + row.ratios.length * Math.log(row.height / target) ** 2, 0);
    return { rows, cost };
  });
  return candidates.reduce((best, candidate) => (candidate.cost < best.cost ? candidate : best)).rows;
}

/** Rows of the ratios, with a break after each set bit. */
function breakRows(/** @type {number[]} */ ratios, /** @type {number} */ breaks) {
  /** @type {number[][]} */
  const rows = [[]];
  for (const [index, ratio] of ratios.entries()) {
    rows[rows.length - 1].push(ratio);
    if (breaks & (1 << index)) rows.push([]);
  }
  return rows;
}

function computeHeight(/** @type {number[]} */ row, /** @type {number} */ width, /** @type {number} */ gap) {
  const ratio = row.reduce((sum, each) => sum + each, 0);
  return Math.min(MAX_HEIGHT_PX, (width - gap * (row.length - 1)) / ratio);
}
