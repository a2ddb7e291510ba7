// openai-node, method by method. A task's `calls` are [method, ...arguments]; {"$": [place, ...path]} stands for a part
// of an earlier result. What can be iterated is: events of a stream, items of all pages.
import OpenAI from "openai";
import { judge } from "./judge.mjs";

await judge(async ({ baseURL, calls }) => {
  const client = new OpenAI({ baseURL, apiKey: "none", maxRetries: 0 });
  const results = [];
  for (const [name, ...args] of calls) {
    const path = name.split(".");
    const method = path.pop();
    const owner = path.reduce((found, key) => found[key], client);
    try {
      results.push(await whole(owner[method](...filled(args, results))));
    } catch (error) {
      results.push({ error: { status: error.status ?? null, code: error.code ?? null, message: String(error.message) } });
    }
  }
  return { results };
});

function filled(value, results) {
  if (Array.isArray(value)) return value.map((each) => filled(each, results));
  if (value === null || typeof value !== "object") return value;
  if ("$" in value) return value.$.reduce((found, key) => found[key < 0 ? found.length + key : key], results);
  return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, filled(each, results)]));
}

async function whole(promised) {
  const result = await promised;
  if (result === undefined || result === null) return null;
  if (typeof result.finalResponse === "function" || result.controller || typeof result.iterPages === "function") {
    const all = [];
    for await (const each of result) all.push(each);
    return all;
  }
  return result;
}
