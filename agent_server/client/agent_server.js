/**
 * A client of session turns for browsers, Node and whatever else has `fetch`. No dependencies.
 *
 *   import { open } from "/client/agent_server.js";
 *
 *   const session = await open("", { user_id: "ann" });
 *   for await (const { event, data } of session.stream("What is the weather in Oslo?")) console.log(event, data);
 *   console.log((await session.ask("And tomorrow?")).answer);
 *
 * `EventSource` cannot POST, so streams are read with `fetch`. One whose connection is lost goes on where it was.
 */

const ENDS = new Set(["command_output", "error"]);
const AWAY = new Set([502, 503]);
const TRIES = 8; // connections in a row that bring nothing new
const SILENCE = 60_000; // milliseconds, heartbeats included, after which a connection is taken for lost

/** The server refused a request: `status` is HTTP's, `code` the server's own word. */
export class AgentServerError extends Error {
  constructor(status, code, message) {
    super(`${status} ${code}: ${message}`);
    this.name = "AgentServerError";
    this.status = status;
    this.code = code;
  }
}

/** The server could not be reached again. The turn may go on; `turnId` names it, if it was known. */
export class ConnectionLostError extends Error {
  constructor(turnId) {
    super(`The connection was lost${turnId ? ` in turn ${turnId}` : ""}.`);
    this.name = "ConnectionLostError";
    this.turnId = turnId;
  }
}

/** The events of a `text/event-stream` (WHATWG HTML, section 9.2.6), as `{ event, data }` with `data` parsed. */
export async function* events(stream, { silence = SILENCE } = {}) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let event = "";
  let data = [];
  try {
    for (;;) {
      const { done, value } = await soon(reader.read(), silence);
      if (done) return; // what has no blank line after it is no event
      const lines = (rest + value).split(/\r\n|\n|\r(?!$)/);
      rest = lines.pop();
      for (const line of lines) {
        if (line === "") {
          if (data.length > 0) yield { event: event || "message", data: JSON.parse(data.join("\n")) };
          event = "";
          data = [];
          continue;
        }
        const colon = line.indexOf(":");
        if (colon === 0) continue; // a comment, such as a heartbeat
        const name = colon < 0 ? line : line.slice(0, colon);
        const text = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
        if (name === "event") event = text;
        else if (name === "data") data.push(text);
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** Open a session: a new one, or with `session_id` and `token` one that is there. */
export async function open(baseUrl = "", { token, fetch: fetcher, ...options } = {}) {
  const ask = fetcher ?? globalThis.fetch.bind(globalThis);
  const headers = { "content-type": "application/json", ...(token ? { authorization: `Bearer ${token}` } : {}) };
  const response = await ask(`${baseUrl}/initialize`, { method: "POST", headers, body: JSON.stringify(options) });
  if (!response.ok) throw await refusal(response);
  const told = await response.json();
  return new Session(baseUrl, told.session_id, told.token, ask);
}

/** A session, by its id and token. Options of a turn are those of the server: `show_agent_traces`, ... */
export class Session {
  constructor(baseUrl, id, token, fetcher = globalThis.fetch.bind(globalThis)) {
    this.baseUrl = baseUrl;
    this.id = id;
    this.token = token;
    this.fetch = fetcher;
  }

  /** The frames of a new turn, to its last one. `query` is a text, or `{ decision }`. */
  stream(query, { signal, ...options } = {}) {
    const said = typeof query === "string" ? { user_query: query } : query;
    return this.#follow({ body: { ...said, ...options }, turnId: "", after: -1, signal });
  }

  /** The frames of a turn after the one of that number. */
  resume(turnId, { after = -1, signal } = {}) {
    return this.#follow({ turnId, after, signal });
  }

  /** The whole turn, once it is over or waits for an answer. */
  async ask(query, options = {}) {
    for await (const { event, data } of this.stream(query, { show_agent_traces: false, ...options })) {
      if (event === "command_output") return data;
      if (event === "error") return this.turn(data.turn_id);
    }
  }

  /** A turn as it is, after `wait` seconds at most. */
  turn(turnId, { wait = 0 } = {}) {
    return this.#json("GET", `/turns/${turnId}?wait=${wait}`);
  }

  /** A turn, stopped. */
  cancel(turnId) {
    return this.#json("POST", `/turns/${turnId}/cancel`);
  }

  async #json(method, path) {
    const headers = { authorization: `Bearer ${this.token}` };
    const response = await this.fetch(`${this.baseUrl}${path}`, { method, headers });
    if (!response.ok) throw await refusal(response);
    return response.json();
  }

  async *#follow(turn) {
    turn.key = globalThis.crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}`; // asking again joins the turn
    turn.tries = 0;
    while (!turn.done) {
      try {
        yield* this.#connection(turn);
      } catch (error) {
        if (error instanceof AgentServerError || turn.signal?.aborted) throw error;
      }
      if (turn.done) return;
      turn.tries += 1;
      if (turn.tries > TRIES) throw new ConnectionLostError(turn.turnId);
      if (turn.tries > 1) await pause(Math.min(2000, 50 * 2 ** (turn.tries - 1)), turn.signal);
    }
  }

  /** The frames that one connection brings. */
  async *#connection(turn) {
    const response = await this.fetch(...this.#request(turn));
    if (AWAY.has(response.status)) return;
    if (!response.ok) throw await refusal(response);
    turn.turnId = response.headers.get("x-turn-id") ?? turn.turnId;
    for await (const frame of events(response.body)) {
      const { sequence = turn.after + 1, turn_id } = frame.data;
      if (sequence <= turn.after) continue;
      turn.after = sequence;
      turn.tries = 0;
      turn.turnId = turn_id ?? turn.turnId;
      turn.done = ENDS.has(frame.event);
      yield frame;
      if (turn.done) return;
    }
  }

  #request({ body, turnId, after, key, signal }) {
    const headers = { authorization: `Bearer ${this.token}`, accept: "text/event-stream" };
    if (turnId) {
      const query = new URLSearchParams({ stream_format: "sse" });
      if (after >= 0) query.set("after", after);
      if (body?.show_agent_traces === false) query.set("show_agent_traces", "false");
      return [`${this.baseUrl}/turns/${turnId}/events?${query}`, { headers, signal }];
    }
    Object.assign(headers, { "content-type": "application/json", "idempotency-key": key });
    const text = JSON.stringify({ ...body, stream_format: "sse" });
    return [`${this.baseUrl}/invoke_agent_stream`, { method: "POST", headers, body: text, signal }];
  }
}

async function refusal(response) {
  const text = await response.text();
  try {
    const { code, message } = JSON.parse(text).error;
    return new AgentServerError(response.status, code, message);
  } catch {
    return new AgentServerError(response.status, "unknown", text.slice(0, 200));
  }
}

/** The promise, or an error after so many milliseconds. */
function soon(promise, milliseconds) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error("silence")), milliseconds);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => (clearTimeout(timer), reject(signal.reason)), { once: true });
  });
}
