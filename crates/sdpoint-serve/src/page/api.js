// Requests to the server, with the token if it requires one.

const KEY = "sdpoint-token";
const LONGEST = 20_000;

/** A request that did not succeed. `kind` is one of "offline", "slow", "busy", "late", "bad",
 *  "missing", "superseded", "token" and "server". */
export class Problem extends Error {
  constructor(kind, message, retryAfter) {
    super(message);
    this.kind = kind;
    this.retryAfter = retryAfter;
  }
}

const KINDS = { 401: "token", 404: "missing", 408: "slow", 429: "busy", 503: "busy", 504: "late" };

let token = stored();
let asking = null;
let ask = async () => null;

function stored() {
  try {
    return sessionStorage.getItem(KEY);
  } catch {
    return null;
  }
}

/** Sets what asks the user for a token: `ask(wrong)` resolves to it. */
export function onToken(handler) {
  ask = handler;
}

async function newToken(refused) {
  // Another request may have asked in the meantime.
  if (token !== refused) return;
  asking ??= ask(refused !== null).then((given) => {
    token = given;
    try {
      sessionStorage.setItem(KEY, given);
    } catch {
      // Without storage, it is kept until the page is reloaded.
    }
  }).finally(() => {
    asking = null;
  });
  await asking;
}

/** Sends a request and returns the response, if it succeeded; `signal` ends it before. */
export async function send(path, { headers = {}, timeout = LONGEST, signal, ...options } = {}) {
  for (;;) {
    const used = token;
    const all = used ? { ...headers, Authorization: `Bearer ${used}` } : headers;
    let response;
    try {
      const limit = AbortSignal.timeout(timeout);
      const either = signal ? AbortSignal.any([limit, signal]) : limit;
      response = await fetch(path, { ...options, headers: all, signal: either, cache: "no-store" });
    } catch (error) {
      if (signal?.aborted) throw new Problem("superseded", "");
      if (error.name === "TimeoutError") {
        throw new Problem("slow", "The server did not answer in time.");
      }
      throw new Problem("offline", "The server cannot be reached.");
    }
    if (response.status === 401) {
      await newToken(used);
      continue;
    }
    if (response.ok) return response;
    const after = Number(response.headers.get("retry-after")) || undefined;
    const kind = KINDS[response.status] ?? (response.status < 500 ? "bad" : "server");
    throw new Problem(kind, await reason(response), after);
  }
}

/** The content of a response: `read(response)`, which must be of a shape. */
async function content(path, options, read, shape) {
  const response = await send(path, options);
  let answer;
  try {
    answer = await read(response);
  } catch (error) {
    if (options?.signal?.aborted) throw new Problem("superseded", "");
    if (error.name === "TimeoutError") throw new Problem("slow", "The answer did not arrive in time.");
    // What is no JSON is of no shape, either.
    if (error.name !== "SyntaxError") throw new Problem("offline", "The answer was cut off.");
  }
  if (!shape(answer)) throw new Problem("server", "The answer is not one of an sdpoint server.");
  return answer;
}

/** The response as JSON. */
export function get(path, shape, options) {
  return content(path, options, (response) => response.json(), shape);
}

/** The response as an image file. */
export function getImage(path) {
  return content(path, {}, (response) => response.blob(), (blob) => blob.type.startsWith("image/"));
}

const text = (value) => typeof value === "string";
const number = Number.isFinite;
const maybe = (shape) => (value) => value === null || value === undefined || shape(value);
const list = (shape, least = 0) => (value) =>
  Array.isArray(value) && value.length >= least && value.every(shape);
const object = (shapes) => (value) => value !== null && typeof value === "object"
  && Object.entries(shapes).every(([key, shape]) => shape(value[key]));

/** What the answers have that the page uses. */
export const MODELS = object({
  models: list(object({ name: text, state: text, reason: maybe(text) })),
  objective_ms: number, max_images: number, max_body_bytes: number, max_pixels: number,
});
export const MODEL = object({
  network: text, classes: number, times: text, input: list(number, 2),
  instances: list(object({
    name: text, kind: text, combination: maybe(number), macs: number, share: number, ms: maybe(number),
    top1: maybe(number),
  }), 1),
  samples: list(object({ class: text })),
});
export const PREDICTION = object({
  images: list(object({ top: list(object({ class: text, probability: number }), 1) }), 1),
  instance: text, macs: number, accuracy: maybe(number), compute_us: number, queue_us: number,
});
export const LOAD = object({
  now: number, objective_ms: number, queued_images: number, answered_per_second: number, in_time: maybe(number),
  p50_ms: maybe(number), p99_ms: maybe(number), seconds: list(() => true),
});
export const SECOND = object({
  at: number, answered: number, refused: number, refused_images: number, p50_ms: maybe(number), p99_ms: maybe(number),
  images: (images) => object({})(images) && Object.values(images).every(number),
});

/** What the server says of a request that failed. */
async function reason(response) {
  try {
    const { error } = await response.json();
    if (typeof error === "string" && error) return `${error[0].toUpperCase()}${error.slice(1)}`;
  } catch {
    // A proxy may answer with something else.
  }
  return `The server answered with status ${response.status}.`;
}

/** The path of a model. */
export function modelPath(name, rest = "") {
  return `/models/${encodeURIComponent(name)}${rest}`;
}
