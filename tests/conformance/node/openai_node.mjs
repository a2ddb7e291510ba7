// openai-node. Modes: create, stream (raw events), accumulate (responses.stream().finalResponse()).
import OpenAI from "openai";
import { judge } from "./judge.mjs";

await judge(async ({ baseURL, mode, body, headers = {} }) => {
  const client = new OpenAI({ baseURL, apiKey: "none", defaultHeaders: headers });
  if (mode === "create") {
    const response = await client.responses.create(body);
    return { response, text: response.output_text };
  }
  if (mode === "stream") {
    const events = [];
    for await (const event of await client.responses.create({ ...body, stream: true })) events.push(event);
    return { events };
  }
  const response = await client.responses.stream(body).finalResponse();
  return { response, text: response.output_text };
});
