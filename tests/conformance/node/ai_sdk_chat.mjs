// Chats with `ai` 5, 6 and 7 as `useChat` has them: AbstractChat over DefaultChatTransport, or WebSocketChatTransport
// (7). A task's steps are what the person does; each gives the chat as it is afterwards.
//   {say, files?, messageId?, leaveAt?}  a message; `leaveAt`: `stop()` is called once the answer holds that text,
//                                        `dropAt`: the socket is closed then
//   {approve, reason?}                   answers to all approval requests, one for all or one each
//   {output}                             outputs for all calls that wait for the client: tool name -> output
//   {regenerate}                         another answer, to the last message or to the one of that id
//   {resume, openAt?, opener?}           reattach; once the answer holds `openAt`, the agent `opener` is asked
//   {continue}                           send what there is, with this body
//   {post}                               a request of its own: {path, body}
import { WebSocket } from "ws";
import { judge } from "./judge.mjs";

const packages = { 5: "ai5", 6: "ai6", 7: "ai" };

class State {
  status = "ready";
  error = undefined;
  messages = [];
  pushMessage = (message) => (this.messages = this.messages.concat(message));
  popMessage = () => (this.messages = this.messages.slice(0, -1));
  replaceMessage = (index, message) => (this.messages = [...this.messages.slice(0, index), structuredClone(message), ...this.messages.slice(index + 1)]);
  snapshot = (value) => structuredClone(value);
}

await judge(async ({ version, baseURL, path = "/api/chat", id, socket = false, body = {}, auto = null, short = false, steps }) => {
  const sdk = await import(packages[version]);
  class Chat extends sdk.AbstractChat {
    constructor(options) {
      super({ ...options, state: new State() });
    }
  }
  const exchanges = [];
  const asked = async (url, init) => {
    const response = await fetch(url, init);
    exchanges.push({ method: init.method, status: response.status, protocol: response.headers.get("x-vercel-ai-ui-message-stream"), contentType: response.headers.get("content-type") });
    return response;
  };
  const prepare = short ? { prepareSendMessagesRequest: ({ id, messages, body }) => ({ body: { ...body, id, message: messages.at(-1) } }) } : {};
  const transport = socket
    ? new sdk.WebSocketChatTransport({ url: `${baseURL.replace("http", "ws")}${path}`, body, webSocket: WebSocket })
    : new sdk.DefaultChatTransport({ api: `${baseURL}${path}`, body, fetch: asked, ...prepare });
  const data = [];
  const errors = [];
  const called = [];
  const chat = new Chat({
    id,
    transport,
    onData: (part) => data.push(part),
    onError: (error) => errors.push(error.message),
    onToolCall: ({ toolCall }) => void called.push(toolCall.toolName),
    sendAutomaticallyWhen: auto && sdk[auto],
  });
  const calls = () => chat.messages.flatMap((message) => message.parts).filter((part) => part.toolCallId);
  const settled = async () => {
    // an automatic request begins only after the call that caused it has returned
    for (let quiet = 0; quiet < 5; quiet = ["ready", "error"].includes(chat.status) ? quiet + 1 : 0) await new Promise((done) => setTimeout(done, 10));
  };
  const turns = [];
  for (const step of steps) {
    if (step.say !== undefined) {
      const sent = chat.sendMessage({ text: step.say, files: step.files, messageId: step.messageId });
      if (step.leaveAt) {
        await until(() => text(chat.lastMessage).includes(step.leaveAt));
        await chat.stop();
      }
      if (step.dropAt) {
        await until(() => text(chat.lastMessage).includes(step.dropAt));
        transport.close();
      }
      await sent;
    } else if (step.approve !== undefined) {
      const requests = calls().filter((part) => part.state === "approval-requested");
      for (const [place, part] of requests.entries()) {
        const approved = Array.isArray(step.approve) ? step.approve[place] : step.approve;
        await chat.addToolApprovalResponse({ id: part.approval.id, approved, reason: step.reason });
      }
      if (!auto) await chat.sendMessage();
    } else if (step.output) {
      for (const part of calls().filter((part) => ["input-available", "approval-requested"].includes(part.state))) {
        const tool = sdk.getToolName ? sdk.getToolName(part) : part.type.slice(5);
        if (tool in step.output) await chat.addToolOutput({ tool, toolCallId: part.toolCallId, output: step.output[tool] });
      }
      if (!auto) await chat.sendMessage();
    } else if (step.regenerate !== undefined) {
      await chat.regenerate(step.regenerate ? { messageId: step.regenerate } : {});
    } else if (step.resume) {
      const resumed = chat.resumeStream();
      if (step.openAt) {
        await until(() => text(chat.lastMessage).includes(step.openAt));
        await fetch(`${baseURL}/api/chat`, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ id: `${id}-opener`, agent: step.opener, message: { role: "user", parts: [{ type: "text", text: "Open!" }] } }) });
      }
      await resumed;
    } else if (step.continue) {
      await chat.sendMessage(undefined, { body: step.continue });
    } else if (step.post) {
      const answer = await fetch(`${baseURL}${step.post.path}`, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(step.post.body ?? {}) });
      turns.push({ status: answer.status, body: await answer.json() });
      continue;
    }
    await settled();
    turns.push(structuredClone({ status: chat.status, messages: chat.messages, errors, data, called, exchanges }));
  }
  transport.close?.();
  return { turns };
});

function text(message) {
  return (message?.role === "assistant" ? message.parts : []).filter((part) => part.type === "text").map((part) => part.text).join("");
}

async function until(holds) {
  for (const end = Date.now() + 20000; !holds(); ) {
    if (Date.now() > end) throw new Error("it never came to that");
    await new Promise((done) => setTimeout(done, 5));
  }
}
