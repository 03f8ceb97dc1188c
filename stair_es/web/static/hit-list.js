// Hits for display: duplicates folded, weak matches separate, and their shared scale and colors. Pure.

import { assignHues, sortQueryTokens } from "./format.js";

/** Hits of one or more pages without repetitions: the same image, or another one with the same bytes. @param {Hit[]} hits */
export function foldDuplicates(hits) {
  /** @type {Hit[]} */
  const folded = [];
  /** The index of a hit by its id and its SHA-256. @type {Map<string, number>} */
  const indexByKey = new Map();
  for (const hit of hits) {
    const index = indexByKey.get(hit.id) ?? (hit.sha256 ? indexByKey.get(hit.sha256) : undefined);
    if (index === undefined) {
      for (const key of [hit.id, hit.sha256, ...hit.duplicates.map(({ id }) => id)]) if (key) indexByKey.set(key, folded.length);
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

/** The largest score and the largest contribution of a token, so that bars are comparable. */
function computeScale(/** @type {Hit[]} */ hits) {
  const findMax = (/** @type {number[]} */ numbers) => numbers.reduce((max, number) => Math.max(max, number), 1e-9);
  const contributions = hits.flatMap((hit) => hit.contributions.map(({ contribution }) => contribution));
  return { score: findMax(hits.map(({ score }) => score)), contribution: findMax(contributions) };
}
