// Comparison of two rankings. Pure.

/** The share of the first k that is in both rankings. @param {Hit[]} left @param {Hit[]} right @param {number} k */
export function computeOverlap(left, right, k) {
  const size = Math.min(k, Math.max(left.length, right.length));
  return size ? findMoves(left, right, k).length / size : 0;
}

/** Id -> rank, starting at 1. @param {Hit[]} hits */
export const rankHits = (hits) => new Map(hits.map(({ id }, index) => [id, index + 1]));

/** The hits among the first k on both sides. @param {Hit[]} left @param {Hit[]} right @param {number} k @returns {Move[]} */
export function findMoves(left, right, k) {
  const ranks = rankHits(right.slice(0, k));
  return left.slice(0, k).flatMap(({ id }, index) => {
    const to = ranks.get(id);
    return to === undefined ? [] : [{ id, from: index + 1, to }];
  });
}

/** The direction of a rank change. @param {number} from @param {number} to */
export const getDirection = (from, to) => (to < from ? "up" : to > from ? "down" : "same");
