// Requests to the server. Every failure is an ApiError with a remedy.

import { urlOf } from "./root.js";

const PATIENCE_MS = [150, 400, 900];

class ApiError extends Error {
  constructor(message, remedy, status) {
    super(message);
    this.remedy = remedy;
    this.status = status;
  }
}

export const about = () => ask("api/about");
export const search = (body, signal) => post("api/search", body, signal);
export const facets = (body, signal) => post("api/facets", body, signal);
export const values = (field, prefix, signal) =>
  ask(`api/fields/${encodeURIComponent(field)}?prefix=${encodeURIComponent(prefix)}`, { signal });
export const image = (id, signal) => ask(`api/image/${encodeURIComponent(id)}`, { signal });
export const neighbors = (id, k, signal) => ask(`api/image/${encodeURIComponent(id)}/neighbors?k=${k}`, { signal });

/** The words of a picture, which the server doesn't store. */
export function read(blob, signal) {
  return ask("api/image", { method: "POST", body: blob, headers: { "Content-Type": blob.type || "image/jpeg" }, signal });
}

function post(path, body, signal) {
  return ask(path, { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" }, signal });
}

/** The response as JSON. If the server is busy (429), the request is retried a few times. */
async function ask(path, options = {}) {
  for (let attempt = 0; ; attempt += 1) {
    const response = await fetched(path, options);
    if (response.status !== 429 || attempt >= PATIENCE_MS.length) return answerOf(response);
    await new Promise((done) => setTimeout(done, PATIENCE_MS[attempt]));
    options.signal?.throwIfAborted();
  }
}

async function fetched(path, options) {
  try {
    return await fetch(urlOf(path), { credentials: "same-origin", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("the server does not respond", "Check that `stair-es serve` is still running, and try again.", 0);
  }
}

async function answerOf(response) {
  let answer;
  try {
    answer = await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(`the server answered with status ${response.status}`, "See the log of the server.", response.status);
  }
  if (!response.ok) throw new ApiError(answer.error ?? `status ${response.status}`, answer.remedy ?? "", response.status);
  return answer;
}

/** Runs one thing at a time: a new one aborts the previous one, whose result is discarded. */
export function latest() {
  let running = null;
  const run = async (work) => {
    running?.abort();
    const mine = (running = new AbortController());
    try {
      const result = await work(mine.signal);
      return running === mine ? { result } : { stale: true };
    } catch (error) {
      if (running !== mine || error.name === "AbortError") return { stale: true };
      return { error };
    }
  };
  run.stop = () => {
    running?.abort();
    running = null;
  };
  return run;
}
