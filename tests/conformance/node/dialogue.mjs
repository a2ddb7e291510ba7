// Whole dialogues with the AI SDK, which keeps the history itself, as chat UIs do. A task's steps are what the person
// does: `say` something, or answer all approval requests by `approve` (and a `reason`). With `follow` only what is new
// is sent, and the id of the last response; `body` is what a host adds to every request.
// Providers: openai (@ai-sdk/openai), databricks (@databricks/ai-sdk-provider at `path`). Modes: generate, stream.
import { createOpenAI } from "@ai-sdk/openai";
import { createDatabricksProvider } from "@databricks/ai-sdk-provider";
import { generateText, streamText } from "ai";
import { collect, toolSet } from "./ai_sdk.mjs";
import { judge } from "./judge.mjs";

const providers = {
  openai: (baseURL, _, asked) => createOpenAI({ baseURL: `${baseURL}/v1`, apiKey: "none", fetch: asked }),
  databricks: (baseURL, path, asked) =>
    createDatabricksProvider({ baseURL, fetch: asked, formatUrl: ({ baseUrl }) => `${baseUrl}${path}`, useRemoteToolCalling: true }),
};

await judge(async ({ provider, baseURL, path = "", mode, model, steps, options = {}, tools = [], body = {}, follow = false }) => {
  const bodies = [];
  const asked = async (url, init) => {
    const sent = { ...JSON.parse(init.body), ...body };
    bodies.push(sent);
    return fetch(url, { ...init, body: JSON.stringify(sent) });
  };
  const made = providers[provider](baseURL, path, asked);
  const messages = [];
  const turns = [];
  let pending = [];
  let last = null;
  for (const step of steps) {
    if (follow && step.say) messages.length = 0;
    messages.push(step.say ? { role: "user", content: step.say } : { role: "tool", content: pending.map((id, i) => answer(id, step, i)) });
    const call = { model: made.responses(model), messages, maxRetries: 0, tools: toolSet(tools), providerOptions: { openai: { ...options, ...(follow && !options.conversation && last && { previousResponseId: last }) } } };
    const result = mode === "generate" ? await generateText(call) : streamText({ ...call, onError: () => {} });
    const parts = mode === "generate" ? result.content : await collect(result.fullStream);
    const error = parts.find((part) => part.type === "error");
    if (error) return { turns: [...turns, { error: error.message }], bodies };
    const response = await result.response;
    messages.push(...response.messages);
    last = response.id ?? null;
    pending = parts.filter((part) => part.type === "tool-approval-request").map((part) => part.approvalId);
    turns.push({
      text: await result.text,
      finishReason: await result.finishReason,
      responseId: response.id ?? null,
      approvals: parts.filter((part) => part.type === "tool-approval-request").map((part) => ({ id: part.approvalId, toolCallId: part.toolCall.toolCallId, name: part.toolCall.toolName, input: part.toolCall.input })),
      calls: parts.filter((part) => part.type === "tool-call").map(({ toolCallId, toolName, input }) => ({ toolCallId, toolName, input })),
      results: parts.filter((part) => part.type === "tool-result").map(({ toolCallId, toolName, output }) => ({ toolCallId, toolName, output })),
    });
  }
  return { turns, bodies };
});

function answer(approvalId, { approve, reason }, place) {
  const approved = Array.isArray(approve) ? approve[place] : approve;
  return { type: "tool-approval-response", approvalId, approved, providerExecuted: true, ...(reason && !approved && { reason }) };
}
