// Comparison of two rankings. Pure.

/** The share of the first k that is in both rankings. */
export function overlap(left, right, k) {
  const one = new Set(left.slice(0, k).map((hit) => hit.id));
  const other = new Set(right.slice(0, k).map((hit) => hit.id));
  const most = Math.max(one.size, other.size);
  return most ? [...one].filter((id) => other.has(id)).length / most : 0;
}

/** Id -> rank, starting at 1. */
export const ranksOf = (hits) => new Map(hits.map((hit, place) => [hit.id, place + 1]));

/** For each hit among the first k on both sides: `{id, from, to}`, ranks starting at 1. */
export function moves(left, right, k) {
  const there = ranksOf(right.slice(0, k));
  return left
    .slice(0, k)
    .flatMap((hit, place) => (there.has(hit.id) ? [{ id: hit.id, from: place + 1, to: there.get(hit.id) }] : []));
}

/** The direction of a rank change: "up", "down" or "same". */
export const direction = ({ from, to }) => (to < from ? "up" : to > from ? "down" : "same");
