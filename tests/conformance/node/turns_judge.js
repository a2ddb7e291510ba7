// Judges the client of session turns, and WebSockets, the same in a browser and in Node: no imports, no dependencies.
// `base` is the address of a server that cuts each stream of a turn after every frame.

const kinds = (frames) => frames.map(({ event, data }) => `${event} ${data.sequence}`);

async function all(frames) {
  const found = [];
  for await (const frame of frames) found.push(frame);
  return found;
}

async function refusal(promise) {
  try {
    await promise;
    return "nothing was refused";
  } catch (error) {
    return `${error.name} ${error.status ?? ""} ${error.code ?? ""}`.trim();
  }
}

/** What the parser makes of a text that comes in pieces of so many bytes. */
function parsed(client, text, size) {
  const bytes = new TextEncoder().encode(text);
  const stream = new ReadableStream({
    start(controller) {
      for (let at = 0; at < bytes.length; at += size) controller.enqueue(bytes.slice(at, at + size));
      controller.close();
    },
  });
  return all(client.events(stream));
}

async function parser(client) {
  const text =
    ': ping\n\nevent: trace\ndata: {"a":"\u00fc\ud83d\ude00"}\n\nevent: x\r\ndata:[1,\r\ndata: 2]\r\n\r\n' +
    'id: 7\rdata: {}\r\rdata: {"cut":';
  const made = [];
  for (const size of [1, 2, 3, 5, 7, 1000]) made.push(JSON.stringify(await parsed(client, text, size)));
  return [...new Set(made)];
}

/** A WebSocket: what it was sent until `isLast`, or the code that it was closed with. */
function socket(base, protocol, sends, isLast = () => false) {
  return new Promise((resolve, reject) => {
    const url = new URL("/ws", base);
    url.protocol = "ws:";
    const connection = new WebSocket(url, protocol);
    const messages = [];
    connection.onopen = () => sends.forEach((each) => connection.send(each));
    connection.onmessage = ({ data }) => {
      messages.push(JSON.parse(data));
      if (isLast(messages.at(-1))) {
        connection.close(1000);
        resolve({ messages, protocol: connection.protocol });
      }
    };
    connection.onclose = ({ code }) => resolve({ messages, code });
    connection.onerror = () => typeof window === "undefined" || reject(new Error("the WebSocket failed"));
  });
}

const isLast = ({ type }) => type === "end" || type === "error";

async function sockets(base) {
  const run = JSON.stringify({ type: "run", requestId: "1", agent: "text_tool_text", message: "Hi" });
  const { messages, protocol } = await socket(base, ["unknown", "langchain.v2"], [run], isLast);
  const { runId } = messages[0];
  const after = messages.length - 5;
  const resume = JSON.stringify({ type: "resume", requestId: "2", runId, lastSequence: after });
  const again = await socket(base, "langchain.v2", [resume], isLast);
  const bad = await socket(base, "langchain.v2", ["nonsense"]);
  const large = await socket(base, "langchain.v2", [JSON.stringify({ type: "run", requestId: "x".repeat(2 ** 20) })]);
  return {
    protocol,
    first: messages[0].type,
    sequences: messages.slice(1).map(({ sequence }) => sequence),
    last: messages.at(-1).status,
    resumed: again.messages.slice(1).map(({ sequence }) => sequence),
    bad: bad.code,
    large: large.code,
  };
}

export async function judge(base, client) {
  const session = await client.open(base, { agent: "text_tool_text", user_id: "ann" });
  const frames = await all(session.stream("Weather?"));
  const turn = frames[0].data.turn_id;
  const approval = await client.open(base, { agent: "approval" });
  const asked = await approval.ask("Write.");
  const slow = await client.open(base, { agent: "slow" });
  const going = slow.stream("Hi");
  const started = await going.next();
  const abort = new AbortController();
  const aborted = refusal(slow.resume(started.value.data.turn_id, { after: 0, signal: abort.signal }).next());
  setTimeout(() => abort.abort(), 50);
  const verdicts = {
    frames: kinds(frames),
    turns: new Set(frames.map(({ data }) => data.turn_id)).size,
    answer: frames.at(-1).data.answer,
    asked: (await session.ask("Weather?")).answer,
    quiet: (await all(session.stream("Weather?", { show_agent_traces: false }))).map(({ event }) => event),
    resumed: kinds(await all(session.resume(turn, { after: 1 }))),
    turn: (await session.turn(turn)).exec_state,
    waiting: [asked.exec_state, asked.interrupts[0].kind],
    decided: (await approval.ask({ decision: "approve" })).answer,
    busy: await refusal(slow.ask("Else")),
    stolen: await refusal(client.open(base, { session_id: session.id })),
    again: (await client.open(base, { session_id: session.id, token: session.token })).id === session.id,
    aborted: await aborted,
    cancelled: (await slow.cancel(started.value.data.turn_id)).exec_state,
    end: (await all(going)).map(({ event }) => event),
    parser: await parser(client),
  };
  if (typeof WebSocket !== "undefined") verdicts.sockets = await sockets(base || globalThis.location.href);
  return verdicts;
}
