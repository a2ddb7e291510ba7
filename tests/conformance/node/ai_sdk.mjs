// What the judges built on the AI SDK share.
import { jsonSchema, Output, tool } from "ai";

/** The tools of a task as the AI SDK wants them. */
export function toolSet(tools = []) {
  return Object.fromEntries(tools.map((t) => [t.name, tool({ description: t.description, inputSchema: jsonSchema(t.parameters) })]));
}

/** The output format of a task as the AI SDK wants it. */
export function outputOf(format) {
  return format ? { output: Output.object({ schema: jsonSchema(format.schema), name: format.name }) } : {};
}

/** Every part of an AI SDK stream, errors as their messages. */
export async function collect(stream) {
  const parts = [];
  for await (const part of stream) {
    parts.push(part.type === "error" ? { type: "error", message: messageOf(part.error) } : part);
  }
  return parts;
}

function messageOf(error) {
  return String(error?.message ?? error?.error?.message ?? JSON.stringify(error));
}
