// The state of the search view: actions of the user and of the server, and what follows from it. Pure.

import { foldDuplicates } from "./hit-list.js";
import { EMPTY_QUERY, getQueryKey, isVariant, PAGE_SIZE } from "./query.js";

/** @type {SearchState} */
export const INITIAL_STATE = {
  query: EMPTY_QUERY,
  pending: null,
  isSlow: false,
  isStalled: false,
  hasSkeletons: false,
  answeredQuery: EMPTY_QUERY,
  response: null,
  hits: [],
  lastPage: [],
  results: { strong: [], weak: [] },
  isWeakExpanded: false,
  facets: null,
  corpusFacets: null,
  error: null,
  pageError: null,
};

const NO_PENDING_SEARCH = { pending: null, isSlow: false, isStalled: false, hasSkeletons: false, facets: null };

/** After a failure under placeholders: what they replaced belongs to another query. */
const NO_RESPONSE = { response: null, ...buildResults([]) };

/** The next state. @param {SearchState} state @param {SearchAction} action @returns {SearchState} */
export function reduce(state, action) {
  switch (action.type) {
    case "queryChanged":
      return { ...state, query: action.query };
    case "searchStarted":
      return { ...state, pending: { query: action.query, startedMs: action.startedMs } };
    case "searchSlowed": {
      const keepsHits = state.hits.length > 0 && isVariant(state.query, state.answeredQuery);
      return { ...state, isSlow: true, hasSkeletons: state.hasSkeletons || !keepsHits };
    }
    case "searchStalled":
      return { ...state, isStalled: true };
    case "searchSucceeded":
      return { ...state, ...NO_PENDING_SEARCH, ...buildAnsweredState(state, action) };
    case "searchFailed":
      return { ...state, ...NO_PENDING_SEARCH, ...(state.hasSkeletons ? NO_RESPONSE : {}), error: action.error };
    case "pageLoaded":
      return {
        ...state,
        ...buildResults([...state.hits, ...action.response.hits]),
        response: state.response && { ...state.response, after: action.response.after },
        lastPage: action.response.hits,
        pageError: null,
      };
    case "pageFailed":
      return { ...state, pageError: action.error };
    case "facetsCounted":
      return { ...state, facets: action.facets };
    case "corpusCounted":
      return { ...state, corpusFacets: action.corpusFacets };
    case "indexChanged":
      return { ...state, ...NO_RESPONSE, corpusFacets: null };
    case "weakToggled":
      return { ...state, isWeakExpanded: !state.isWeakExpanded };
  }
}

/** @param {SearchState} state @param {{query: Query, response: SearchResponse}} action */
function buildAnsweredState(state, { query, response }) {
  return {
    ...buildResults(response.hits),
    response,
    answeredQuery: query,
    lastPage: response.hits.slice(-PAGE_SIZE),
    isWeakExpanded: state.isWeakExpanded && isVariant(query, state.answeredQuery),
    error: null,
    pageError: null,
  };
}

function buildResults(/** @type {Hit[]} */ hits) {
  const folded = foldDuplicates(hits);
  return { hits, results: { strong: folded.filter(({ weak }) => !weak), weak: folded.filter(({ weak }) => weak) } };
}

/** Whether the current query has to be searched for. @param {SearchState} state */
export function needsSearch({ query, pending, answeredQuery, response, error }) {
  if (pending) return getQueryKey(query) !== getQueryKey(pending.query);
  return !response || error !== null || getQueryKey(query) !== getQueryKey(answeredQuery);
}

/** What is shown of the results. @param {SearchState} state */
export function selectResults(state) {
  const { results, response, hits, lastPage, isWeakExpanded, error, hasSkeletons } = state;
  const { strong, weak } = results;
  const mayHaveMatches = Boolean(response?.after) && lastPage.some((hit) => !hit.weak);
  const canContinue = Boolean(response?.after) && hits.length > 0 && !error && !hasSkeletons;
  return {
    strong,
    weak,
    shownWeak: isWeakExpanded ? weak : [],
    isUnknown: !strong.length && hasOnlyUnknownWords(state),
    mayHaveMatches,
    hasDivider: weak.length > 0 && !hasSkeletons,
    hasMore: canContinue && (isWeakExpanded || mayHaveMatches),
  };
}

/** Whether the model knows no word of the text, short ones aside. @param {SearchState} state */
function hasOnlyUnknownWords({ response, answeredQuery }) {
  const unknown = new Set(response?.unknown_words?.map(({ word }) => word));
  const words = answeredQuery.text.toLowerCase().match(/[\p{L}\p{N}]{3,}/gu) ?? [];
  return words.length > 0 && words.every((word) => unknown.has(word));
}
