// Lets one generation of LangChain's React hooks do tasks against a server, in a DOM, unmodified.
// stdin: [{ url, hook: "sdk1" | "sdk2" | "react", check }], all of one hook; stdout: [{ ok, note }]
import { readFileSync } from "node:fs";
import { JSDOM } from "jsdom";

const tasks = JSON.parse(readFileSync(0, "utf8"));
const { url, hook } = tasks[0];
const second = hook === "react"; // the generation that speaks the streaming protocol

const dom = new JSDOM("<!doctype html><body></body>", { url: "http://localhost/" });
globalThis.window = dom.window;
globalThis.document = dom.window.document;
Object.defineProperty(globalThis, "navigator", { value: dom.window.navigator, configurable: true });
globalThis.IS_REACT_ACT_ENVIRONMENT = false;
console.error = console.warn = () => {};

const { createElement } = await import("react");
const { createRoot } = await import("react-dom/client");
const modules = { sdk1: "lgsdk1/react", sdk2: "lgsdk2/react", react: "@langchain/react" };
const { useStream } = await import(modules[hook]);
const { Client } = await import("lgsdk1");
const client = new Client({ apiUrl: url });

const human = (content) => ({ messages: [{ type: "human", content }] });
const textOf = ({ content }) =>
  typeof content === "string" ? content : (content ?? []).map((block) => block.text ?? "").join("");
const typeOf = (message) => message.type ?? message.getType?.();

async function until(condition, what) {
  const end = Date.now() + 20_000;
  while (Date.now() < end) {
    try {
      if (await condition()) return;
    } catch {
      // not yet
    }
    await new Promise((done) => setTimeout(done, 10));
  }
  throw new Error(`never came: ${what}`);
}

function equal(got, wanted) {
  if (JSON.stringify(got) !== JSON.stringify(wanted)) {
    throw new Error(`${JSON.stringify(got)} instead of ${JSON.stringify(wanted)}`);
  }
}

/** A mounted page; `page.now` is what the hook returned last, `page.seen` every text of a last message. */
async function mount(options) {
  const page = { now: null, seen: new Set() };
  const Page = () => {
    page.now = useStream({ apiUrl: url, ...options });
    const last = page.now.messages.at(-1);
    if (last) page.seen.add(textOf(last));
    return null;
  };
  const root = createRoot(document.body.appendChild(document.createElement("div")));
  root.render(createElement(Page));
  page.unmount = () => root.unmount();
  page.idle = (count) =>
    until(() => !page.now.isLoading && page.now.messages.length === count, `${count} messages`);
  await until(() => page.now, "the page");
  return page;
}

const open = () => client.runs.wait(null, "opener", { input: human("open") });

const checks = {
  async tool_turn() {
    const page = await mount({ assistantId: "agent", fetchStateHistory: true });
    await page.now.submit(human("weather Paris"));
    await page.idle(4);
    equal(page.now.messages.map(typeOf), ["human", "ai", "tool", "ai"]);
    equal(textOf(page.now.messages[3]).trim(), "The tool said: It is sunny in Paris.");
    if (!second) {
      if ([...page.seen].filter((text) => text.startsWith("The tool")).length < 2) throw new Error("no tokens");
      await until(() => page.now.history.length > 1, "history");
    }
    await page.now.submit(human("again"));
    await page.idle(6);
  },

  async question() {
    const page = await mount({ assistantId: "hitl" });
    await page.now.submit(human("go"));
    await until(() => !page.now.isLoading && page.now.interrupt != null, "the question");
    equal(page.now.interrupt.value, { question: "Proceed?" });
    if (second) await page.now.respond("yes");
    else await page.now.submit(undefined, { command: { resume: "yes" } });
    await until(() => !page.now.isLoading && page.now.messages.some((m) => textOf(m) === "approved=yes"), "the end");
    if (page.now.interrupt != null) throw new Error("the question is still asked");
  },

  async failure() {
    const page = await mount({ assistantId: "agent" });
    await page.now.submit(human("boom")).catch(() => {});
    await until(() => !page.now.isLoading && page.now.error != null, "the error");
    if (!String(page.now.error.message ?? page.now.error).includes("boom")) throw new Error(`${page.now.error}`);
  },

  async stop() {
    let thread;
    const page = await mount({ assistantId: "agent", onThreadId: (id) => (thread = id) });
    const submitted = page.now.submit(human("wait")).catch(() => {});
    await until(() => [...page.seen].some((text) => text.startsWith("t0 t1")), "tokens");
    await page.now.stop();
    await submitted;
    await until(async () => (await client.runs.list(thread))[0]?.status === "interrupted", "the end of the run");
  },

  async reload() {
    let thread;
    const options = { assistantId: "agent", reconnectOnMount: true };
    const page = await mount({ ...options, onThreadId: (id) => (thread = id) });
    page.now.submit(human("wait")).catch(() => {});
    await until(() => [...page.seen].some((text) => text.endsWith("t7 ")), "tokens");
    page.unmount();
    const again = await mount({ ...options, threadId: thread });
    await until(() => [...again.seen].some((text) => text.endsWith("t7 ")), "the same tokens");
    await open();
    await again.idle(2);
    equal(textOf(again.now.messages[1]), Array.from({ length: 20 }, (_, number) => `t${number} `).join(""));
  },

  async old_thread() {
    const thread = await client.threads.create();
    await client.runs.wait(thread.thread_id, "agent", { input: human("hello") });
    const page = await mount({ assistantId: "agent", threadId: thread.thread_id, fetchStateHistory: true });
    await page.idle(2);
    equal(textOf(page.now.messages[1]).trim(), "You said: hello");
  },

  async fork() {
    const page = await mount({ assistantId: "agent", fetchStateHistory: true });
    await page.now.submit(human("one"));
    await page.idle(2);
    await page.now.submit(human("two"));
    await page.idle(4);
    await until(() => page.now.getMessagesMetadata(page.now.messages[2])?.firstSeenState?.parent_checkpoint, "history");
    const { parent_checkpoint: checkpoint } = page.now.getMessagesMetadata(page.now.messages[2]).firstSeenState;
    await page.now.submit(human("two-edited"), { checkpoint });
    await until(() => textOf(page.now.messages.at(-1)).trim() === "You said: two-edited", "the other answer");
    await until(() => page.now.getMessagesMetadata(page.now.messages[2])?.branchOptions?.length >= 2, "branches");
  },

  async custom_events() {
    const told = [];
    const page = await mount({ assistantId: "custom", onCustomEvent: (data, more) => told.push([data, more?.namespace]) });
    await page.now.submit(human("x"), { streamSubgraphs: true });
    await until(() => !page.now.isLoading && told.length === 3, "three events");
    equal(told.map(([data]) => data.progress), [0, 1, 2]);
    if (!told[0][1]?.[0]?.startsWith("child:")) throw new Error(`namespace ${told[0][1]}`);
  },

  async queue() {
    const page = await mount({ assistantId: "agent" });
    const options = { multitaskStrategy: "enqueue" };
    const first = page.now.submit(human("wait"), options);
    await until(() => [...page.seen].some((text) => text.startsWith("t0")), "tokens");
    const then = page.now.submit(human("after"), options);
    await open();
    await Promise.all([first, then]);
    await page.idle(4);
    equal(textOf(page.now.messages[3]).trim(), "You said: after");
  },
};

const verdicts = [];
for (const { check } of tasks) {
  try {
    await checks[check]();
    verdicts.push({ ok: true, note: "" });
  } catch (error) {
    verdicts.push({ ok: false, note: String(error?.stack ?? error).slice(0, 500) });
  }
}
process.stdout.write(JSON.stringify(verdicts), () => process.exit(0));
