// Hits for display: duplicates folded, weak matches separate, and their shared scale and colors. Pure.

import { assignHues, sortQueryTokens } from "./format.js";

const RELATED_TOKEN_COUNT = 8;
/** A token of the query with a smaller share of the heaviest weight is one that the user hardly asked for. */
const MIN_QUERY_SHARE = 0.05;

/** Hits of one or more pages without repetitions: the same image, the same bytes, or the same document. @param {Hit[]} hits */
export function foldDuplicates(hits) {
  /** @type {Hit[]} */
  const folded = [];
  /** The index of a hit by its id, its SHA-256 and its document. @type {Map<string, number>} */
  const indexByKey = new Map();
  for (const hit of hits) {
    const keys = [hit.id, hit.sha256, hit.document].filter((key) => key !== null);
    const index = keys.map((key) => indexByKey.get(key)).find((found) => found !== undefined);
    if (index === undefined) {
      for (const key of [...keys, ...hit.duplicates.map(({ id }) => id)]) indexByKey.set(key, folded.length);
      folded.push(hit);
    } else folded[index] = addDuplicates(folded[index], [{ id: hit.id, name: hit.name, uri: hit.uri }, ...hit.duplicates]);
  }
  return folded;
}

function addDuplicates(/** @type {Hit} */ hit, /** @type {Duplicate[]} */ added) {
  const duplicates = new Map([...hit.duplicates, ...added].map((duplicate) => [duplicate.id, duplicate]));
  duplicates.delete(hit.id);
  return duplicates.size === hit.duplicates.length ? hit : { ...hit, duplicates: [...duplicates.values()] };
}

/** @param {{hit: Hit}} item */
export const getHitId = ({ hit }) => hit.id;

/**
 * The items of tiles and cards.
 * @param {Hit[]} hits @param {QueryToken[]} queryTokens @param {string[]} required @returns {HitItem[]}
 */
export function buildHitItems(hits, queryTokens = [], required = []) {
  const shared = {
    scale: computeScale(hits),
    getHue: assignHues(sortQueryTokens(queryTokens).map(({ token }) => token)),
    required: new Set(required),
  };
  return hits.map((hit, position) => ({ hit, position, ...shared }));
}

/**
 * The words that at least two matches share beyond those of the query, by the sums of their weights.
 * @param {SearchResponse} response @param {string} text the text of the query @returns {{token: string}[]}
 */
export function listRelatedTokens({ hits, query }, text) {
  const maxWeight = Math.max(...query.map(({ weight }) => weight));
  const asked = query.filter(({ weight }) => weight >= MIN_QUERY_SHARE * maxWeight).map(({ token }) => token);
  const known = new Set([...asked, ...text.toLowerCase().split(/[^\p{L}\p{N}]+/u)]);
  /** @type {Map<string, {token: string, count: number, sum: number}>} */
  const totals = new Map();
  for (const hit of foldDuplicates(hits).filter(({ weak }) => !weak))
    for (const [token, weight] of hit.tokens) {
      const { count, sum } = totals.get(token) ?? { count: 0, sum: 0 };
      totals.set(token, { token, count: count + 1, sum: sum + weight });
    }
  const shared = [...totals.values()].filter(
    ({ token, count }) => count > 1 && /^[\p{L}\p{N}]/u.test(token) && !known.has(token),
  );
  return shared.sort((one, other) => other.sum - one.sum).slice(0, RELATED_TOKEN_COUNT);
}

/** The largest score and the largest contribution of a token, so that bars are comparable. */
function computeScale(/** @type {Hit[]} */ hits) {
  const findMax = (/** @type {number[]} */ numbers) => numbers.reduce((max, number) => Math.max(max, number), 1e-9);
  const contributions = hits.flatMap((hit) => hit.contributions.map(({ contribution }) => contribution));
  return { score: findMax(hits.map(({ score }) => score)), contribution: findMax(contributions) };
}
