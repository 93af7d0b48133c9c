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

/** The response as JSON, for which `expects` must hold. */
export async function get(path, { expects = () => true, ...options } = {}) {
  const response = await send(path, options);
  let answer;
  try {
    answer = await response.json();
  } catch (error) {
    if (error.name === "TimeoutError") throw new Problem("slow", "The answer did not arrive in time.");
    throw new Problem("offline", "The answer was cut off.");
  }
  if (!expects(answer)) throw new Problem("server", "The answer is not one of an sdpoint server.");
  return answer;
}

async function reason(response) {
  try {
    const { error } = await response.json();
    if (typeof error === "string") return `${error[0].toUpperCase()}${error.slice(1)}`;
  } catch {
    // A proxy may answer with something else.
  }
  return `The server answered with status ${response.status}.`;
}

/** The path of a model. */
export function modelPath(name, rest = "") {
  return `/models/${encodeURIComponent(name)}${rest}`;
}
