// AI SDK with @databricks/ai-sdk-provider, as Databricks' chat UI uses it. Modes: generate, stream.
import { createDatabricksProvider } from "@databricks/ai-sdk-provider";
import { generateText, streamText } from "ai";
import { collect, outputOf, toolSet } from "./ai_sdk.mjs";
import { judge } from "./judge.mjs";

await judge(async ({ baseURL, mode, model, messages, tools = [], format, headers = {} }) => {
  const provider = createDatabricksProvider({
    baseURL,
    headers,
    formatUrl: ({ baseUrl }) => `${baseUrl}/invocations`,
    useRemoteToolCalling: tools.length === 0,
  });
  const options = {
    model: provider.responses(model),
    messages,
    maxRetries: 0,
    tools: toolSet(tools),
    ...outputOf(format),
  };
  if (mode === "generate") {
    const result = await generateText(options);
    return verdict(result, result.content, format && result.output);
  }
  const result = streamText({ ...options, onError: () => {} });
  const parts = await collect(result.fullStream);
  if (parts.some((part) => part.type === "error")) return { parts };
  const keys = ["text", "reasoningText", "finishReason", "response"];
  const values = await Promise.all(keys.map((key) => result[key]));
  return verdict(Object.fromEntries(keys.map((key, i) => [key, values[i]])), parts, format && (await result.output));
});

function verdict({ text, reasoningText, finishReason, response }, parts, output) {
  return { text, reasoning: reasoningText ?? "", parts, finishReason, messages: response.messages, output: output ?? null };
}
