// Rows of the gallery where CSS alone leaves gaps: the last rows share the width, or an unfilled one is held back.

/** The number of rows at the end whose images are broken into rows anew, so that the last one is full. */
const LAST_ROW_COUNT = 4;
/** So many rows of a whole result are larger than the others. Their height, also relative to the width. */
const FEW_ROW_COUNT = 2;
const FEW_HEIGHT_PX = 200;
const FEW_HEIGHT_SHARE = 0.4;
/** The height of a row that isn't full, because with that height its images fill less than two thirds of the width. */
const UNFILLED_HEIGHT_PX = 260;
const MAX_HEIGHT_PX = 1.5 * UNFILLED_HEIGHT_PX;

/** Lays out the rows of a gallery. */
export class GalleryRows {
  #width = 0;
  #hasMore = false;
  /** @type {HTMLElement[]} */
  #heldBack = [];
  /** The images with widths of their own. @type {HTMLElement[]} */
  #sized = [];

  /** @param {HTMLElement} list */
  constructor(list) {
    this.list = list;
    new ResizeObserver(() => list.clientWidth === this.#width || this.update(this.#hasMore)).observe(list);
  }

  /** Lays out changed images. @param {boolean} hasMore whether others will follow */
  update(hasMore) {
    this.#hasMore = hasMore;
    this.#width = this.list.clientWidth;
    for (const tile of this.#sized) Object.assign(tile.style, { flex: "", maxWidth: "", marginInlineEnd: "" });
    for (const tile of this.#heldBack) tile.classList.remove("waiting");
    this.#sized = this.#heldBack = [];
    const rows = this.list.classList.contains("gallery") && this.#width ? listRows(this.list) : [];
    if (hasMore) this.#holdBackLastRow(rows);
    else if (rows.length) this.#fillLastRows(rows);
  }

  /** Hides the last row until it is complete, unless it has the focus, because further images would move it. */
  #holdBackLastRow(/** @type {HTMLElement[][]} */ rows) {
    const lastRow = rows.length > 1 ? rows[rows.length - 1] : []; // a single row isn't held back
    if (lastRow.some((tile) => tile.contains(document.activeElement))) return;
    this.#heldBack = lastRow;
    for (const tile of lastRow) tile.classList.add("waiting");
  }

  #fillLastRows(/** @type {HTMLElement[][]} */ rows) {
    const gap = Number.parseFloat(getComputedStyle(this.list).columnGap) || 0;
    const heights = rows.slice(-LAST_ROW_COUNT - 1, -1).map(([tile]) => getFrameHeight(tile));
    const isFew = rows.length <= FEW_ROW_COUNT;
    const target = isFew ? Math.min(FEW_HEIGHT_PX, FEW_HEIGHT_SHARE * this.#width) : computeMean(heights);
    const last = findBestRows(rows.slice(-LAST_ROW_COUNT).flat(), this.#width, gap, target);
    // The row before them keeps its height, but a smaller image must not fit into it.
    const before = rows.slice(-LAST_ROW_COUNT - 1, -LAST_ROW_COUNT).map((tiles) => ({ tiles, height: heights[0] }));
    this.#sized = [...before, ...last].flatMap(({ tiles, height }) => setRowHeight(tiles, height, this.#width, gap));
  }
}

/** The height of a picture, without the lines below it. */
const getFrameHeight = (/** @type {HTMLElement} */ tile) => tile.querySelector(".frame")?.getBoundingClientRect().height ?? 0;

/** The images of each row, as CSS breaks them. */
function listRows(/** @type {HTMLElement} */ list) {
  /** @type {HTMLElement[][]} */
  const rows = [];
  for (const tile of /** @type {HTMLCollectionOf<HTMLElement>} */ (list.children)) {
    const row = rows.at(-1);
    if (row && row[0].offsetTop === tile.offsetTop) row.push(tile);
    else rows.push([tile]);
  }
  return rows;
}

/**
 * Breaks images into rows as a paragraph into lines: of all ways, the one whose heights are closest to the target.
 * @param {HTMLElement[]} tiles @param {number} width @param {number} gap @param {number} target @returns {GalleryRow[]}
 */
function findBestRows(tiles, width, gap, target) {
  /** The best rows of the first images, by their number. @type {{cost: number, rows: GalleryRow[]}[]} */
  const best = [{ cost: 0, rows: [] }];
  for (let end = 1; end <= tiles.length; end += 1) {
    const candidates = best.map(({ cost, rows }, start) => {
      const row = tiles.slice(start, end);
      const height = Math.max(1, (width - gap * (row.length - 1)) / sumRatios(row));
      const rowCost = row.length * Math.log(height / target) ** 2;
      return {
        cost: cost + rowCost,
        rows: [...rows, { tiles: row, height: height > MAX_HEIGHT_PX ? UNFILLED_HEIGHT_PX : height }],
      };
    });
    best.push(candidates.reduce((one, other) => (other.cost < one.cost ? other : one)));
  }
  return best[tiles.length].rows;
}

/** Sets the height of a row, and returns its images. No image of the next row moves up into a gap at its end. */
function setRowHeight(
  /** @type {HTMLElement[]} */ tiles,
  /** @type {number} */ height,
  /** @type {number} */ width,
  /** @type {number} */ gap,
) {
  for (const tile of tiles) Object.assign(tile.style, { flex: `0 0 ${getRatio(tile) * height - 0.02}px`, maxWidth: "none" });
  const rest = width - sumRatios(tiles) * height - gap * (tiles.length - 1);
  if (rest > 1) tiles[tiles.length - 1].style.marginInlineEnd = `${Math.floor(rest)}px`;
  return tiles;
}

const getRatio = (/** @type {HTMLElement} */ tile) => Number(tile.style.getPropertyValue("--ratio")) || 1;

const sumRatios = (/** @type {HTMLElement[]} */ tiles) => tiles.reduce((sum, tile) => sum + getRatio(tile), 0);

const computeMean = (/** @type {number[]} */ values) => values.reduce((sum, value) => sum + value, 0) / values.length;
