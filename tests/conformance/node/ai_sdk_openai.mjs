// AI SDK with @ai-sdk/openai. Modes: generate (generateText), stream (streamText).
import { createOpenAI } from "@ai-sdk/openai";
import { generateText, streamText } from "ai";
import { collect, outputOf, toolSet } from "./ai_sdk.mjs";
import { judge } from "./judge.mjs";

await judge(async ({ baseURL, mode, model, messages, tools = [], format, store, headers = {} }) => {
  const openai = createOpenAI({ baseURL, apiKey: "none", headers });
  const options = {
    model: openai.responses(model),
    messages,
    maxRetries: 0,
    tools: toolSet(tools),
    ...(store === false && { providerOptions: { openai: { store } } }),
    ...outputOf(format),
  };
  if (mode === "generate") {
    const result = await generateText(options);
    return summary(result, result.response.messages, format ? result.output : null);
  }
  const result = streamText({ ...options, onError: () => {} });
  const parts = await collect(result.fullStream);
  if (parts.some((part) => part.type === "error")) return { parts };
  return { parts, ...(await settled(result, format)) };
});

async function settled(result, format) {
  const keys = ["text", "reasoningText", "toolCalls", "toolResults", "finishReason", "usage"];
  const values = await Promise.all(keys.map((key) => result[key]));
  const { messages } = await result.response;
  return summary(Object.fromEntries(keys.map((key, i) => [key, values[i]])), messages, format ? await result.output : null);
}

function summary(result, messages, output) {
  return {
    text: result.text,
    reasoning: result.reasoningText ?? "",
    toolCalls: result.toolCalls.map(({ toolCallId, toolName, input, providerExecuted, invalid }) => ({ toolCallId, toolName, input, providerExecuted: !!providerExecuted, invalid: !!invalid })),
    toolResults: result.toolResults.map(({ toolCallId, output: value }) => ({ toolCallId, output: value })),
    finishReason: result.finishReason,
    usage: { input: result.usage.inputTokens, output: result.usage.outputTokens },
    messages,
    output,
  };
}
