// Requests to the server. Every failure is an ApiError with a remedy.

import { buildUrl } from "./base-url.js";

const RETRY_DELAYS_MS = [150, 400, 900];

export class ApiError extends Error {
  /** @param {string} message @param {string} remedy @param {number} status 0 without a response */
  constructor(message, remedy, status) {
    super(message);
    this.remedy = remedy;
    this.status = status;
  }
}

/** @returns {Promise<AboutResponse>} */
export const getAbout = () => request("api/about");

/** @returns {Promise<CoverageReport>} */
export const getCoverage = () => request("api/coverage");

/** @param {object} body @param {AbortSignal} [signal] @returns {Promise<SearchResponse>} */
export const search = (body, signal) => post("api/search", body, signal);

/** @param {object} body @param {AbortSignal} [signal] @returns {Promise<FacetsResponse>} */
export const countFacets = (body, signal) => post("api/facets", body, signal);

/**
 * The most frequent values of a field that begin with a prefix.
 * @param {string} field @param {string} prefix @param {AbortSignal} [signal]
 * @returns {Promise<{values: {value: string | number | boolean, count: number}[]}>}
 */
export const listValues = (field, prefix, signal) =>
  request(`api/fields/${encodeURIComponent(field)}?prefix=${encodeURIComponent(prefix)}`, { signal });

/** @param {string} id @param {AbortSignal} [signal] @returns {Promise<ImageResponse>} */
export const getImage = (id, signal) => request(`api/image/${encodeURIComponent(id)}`, { signal });

/** @param {string} id @param {number} k @param {AbortSignal} [signal] @returns {Promise<NeighborsResponse>} */
export const findNeighbors = (id, k, signal) => request(`api/image/${encodeURIComponent(id)}/neighbors?k=${k}`, { signal });

/** @returns {Promise<{words: TaughtWord[]}>} */
export const listTaughtWords = () => request("api/taught");

/** @param {object} body @param {AbortSignal} signal @returns {Promise<TeachPreviewResponse>} */
export const previewWord = (body, signal) => post("api/teach", body, signal);

/** @param {object} body @returns {Promise<TeachResult>} */
export const teachWord = (body) => post("api/teach/apply", body);

/** @param {string} word @returns {Promise<TeachResult>} */
export const forgetWord = (word) => post("api/teach/forget", { word });

/**
 * The token weights of a picture, which the server doesn't store.
 * @param {Blob} blob @returns {Promise<{tokens: TokenWeight[], thumbnail: string}>}
 */
export const encodeImage = (blob) =>
  request("api/image", { method: "POST", body: blob, headers: { "Content-Type": blob.type || "image/jpeg" } });

/** @param {string} path @param {object} body @param {AbortSignal} [signal] */
function post(path, body, signal) {
  return request(path, {
    method: "POST",
    body: JSON.stringify(body),
    headers: { "Content-Type": "application/json" },
    signal,
  });
}

/**
 * The response as JSON. If the server is busy (429), the request is retried a few times.
 * @param {string} path @param {RequestInit} options @returns {Promise<any>}
 */
async function request(path, options = {}) {
  for (let attempt = 0; ; attempt += 1) {
    const response = await send(path, options);
    if (response.status !== 429 || attempt >= RETRY_DELAYS_MS.length) return parseResponse(response);
    await new Promise((resolve) => setTimeout(resolve, RETRY_DELAYS_MS[attempt]));
    options.signal?.throwIfAborted();
  }
}

async function send(/** @type {string} */ path, /** @type {RequestInit} */ options) {
  try {
    return await fetch(buildUrl(path), { credentials: "same-origin", ...options });
  } catch (error) {
    if (isAbort(error)) throw error;
    throw new ApiError("the server does not respond", "Check that `stair-es serve` is still running, and try again.", 0);
  }
}

async function parseResponse(/** @type {Response} */ response) {
  const { status } = response;
  const body = await response.json().catch((error) => {
    if (isAbort(error)) throw error;
    throw new ApiError(`the server answered with status ${status}`, "See the log of the server.", status);
  });
  if (!response.ok) throw new ApiError(body.error ?? `status ${status}`, body.remedy ?? "", status);
  return body;
}

const isAbort = (/** @type {unknown} */ error) => error instanceof Error && error.name === "AbortError";

/** Runs one task at a time: a new one aborts the previous one, whose outcome is stale. */
export class LatestTask {
  /** @type {AbortController | null} */
  #controller = null;

  /**
   * @template Result
   * @param {(signal: AbortSignal) => Promise<Result>} task
   * @returns {Promise<Outcome<Result>>}
   */
  async run(task) {
    this.abort();
    const controller = new AbortController();
    this.#controller = controller;
    try {
      const result = await task(controller.signal);
      return this.#controller === controller ? { isStale: false, error: null, result } : { isStale: true };
    } catch (error) {
      if (this.#controller !== controller || isAbort(error)) return { isStale: true };
      return { isStale: false, error: /** @type {ApiError} */ (error) };
    }
  }

  abort() {
    this.#controller?.abort();
    this.#controller = null;
  }
}
