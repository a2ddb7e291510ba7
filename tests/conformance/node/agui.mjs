// Threads with the official AG-UI client, `HttpAgent` 1.0. A task's steps are what the person, or the page, does; each
// gives what the client has afterwards, and everything that it warned of.
//   {say, leaveAt?}       a message; the connection is dropped once the answer holds that text
//   {continue}            another run without anything new
//   {answer}              payloads for the pending interrupts, in order; null cancels one
//   {outputs}             outputs of the client's own tools: call id -> text, and another run
//   {regenerate}          what came after the last message of the user is dropped, and run again
//   {attach, opener?}     come back to the thread; `opener` is an agent to be asked once the snapshot is there
// `state`, `tools`, `context` and `forwardedProps` go along with every run.
import { HttpAgent, runHttpRequest, transformHttpEventStream } from "@ag-ui/client";
import { judge } from "./judge.mjs";

class Agent extends HttpAgent {
  connect(input) {
    const url = `${this.url}/threads/${encodeURIComponent(input.threadId)}/events`;
    return transformHttpEventStream(runHttpRequest(() => this.fetch(url, { headers: { accept: "text/event-stream" } })));
  }
}

await judge(async ({ baseURL, agent: name, threadId, state, tools = [], context = [], forwardedProps, steps }) => {
  const noise = [];
  for (const kind of ["warn", "error"]) console[kind] = (...said) => noise.push(`${kind}: ${said.map(String).join(" ").slice(0, 400)}`);
  const url = (agent) => `${baseURL}/agui/${encodeURIComponent(agent)}`;
  const agent = new Agent({ url: url(name), threadId, initialState: state });
  const parameters = { tools, context, ...(forwardedProps && { forwardedProps }) };
  const turns = [];
  let number = 0;
  for (const step of steps) {
    const types = [];
    let outcome = null;
    let refused = null;
    const watcher = {
      onEvent: ({ event }) => {
        types.push(event.type);
        if (step.opener && event.type === "MESSAGES_SNAPSHOT" && !types.slice(0, -1).includes("MESSAGES_SNAPSHOT")) void ask(step.opener);
      },
      onMessagesChanged: ({ messages }) => {
        if (step.leaveAt && messages.some((message) => String(message.content).includes(step.leaveAt))) agent.abortRun();
      },
      onRunFinishedEvent: ({ outcome: how, pendingToolCallIds }) => (outcome = { how, pending: pendingToolCallIds ?? [] }),
      onRunErrorEvent: ({ event }) => (outcome = { how: "error", message: event.message }),
    };
    const ask = (other) => new HttpAgent({ url: url(other), initialMessages: [{ id: "open", role: "user", content: "Open" }] }).runAgent();
    if (step.say) agent.addMessage({ id: `user-${++number}`, role: "user", content: step.say });
    if (step.regenerate) agent.setMessages(agent.messages.slice(0, agent.messages.findLastIndex((message) => message.role === "user") + 1));
    for (const [toolCallId, content] of Object.entries(step.outputs ?? {})) agent.addMessage({ id: `output-${++number}`, role: "tool", toolCallId, content });
    const entry = ({ id }, place) => (step.answer[place] === null ? { interruptId: id, status: "cancelled" } : { interruptId: id, status: "resolved", payload: step.answer[place] });
    const resume = step.answer && agent.pendingInterrupts.map(entry);
    try {
      if (step.attach) await agent.connectAgent({}, watcher);
      else await agent.runAgent({ ...parameters, ...(resume && { resume }) }, watcher);
    } catch (error) {
      refused = error.message;
    }
    turns.push({ types, outcome, refused, messages: structuredClone(agent.messages), state: structuredClone(agent.state), pending: structuredClone(agent.pendingInterrupts) });
  }
  return { turns, noise };
});
