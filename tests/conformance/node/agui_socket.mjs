// Threads with the official AG-UI client over `/ws`, one event a frame: what the client has at the end, and what it
// warned of. A task is {baseURL, agent, says: [text]}.
import { AbstractAgent } from "@ag-ui/client";
import { Observable } from "rxjs";
import { judge } from "./judge.mjs";

class SocketAgent extends AbstractAgent {
  constructor(url, name) {
    super({});
    this.url = url;
    this.name = name;
  }

  run(input) {
    return new Observable((observer) => {
      const socket = new WebSocket(this.url, "agui.v1");
      socket.onopen = () => socket.send(JSON.stringify({ type: "run", requestId: input.runId, agent: this.name, input }));
      socket.onmessage = ({ data }) => {
        const event = JSON.parse(data);
        observer.next(event);
        if (event.type === "RUN_FINISHED" || event.type === "RUN_ERROR") socket.close(1000);
      };
      socket.onclose = () => observer.complete();
      return () => socket.close();
    });
  }
}

await judge(async ({ baseURL, agent: name, says }) => {
  const noise = [];
  for (const kind of ["warn", "error"]) console[kind] = (...said) => noise.push(said.map(String).join(" ").slice(0, 300));
  const agent = new SocketAgent(`${baseURL.replace("http", "ws")}/ws`, name);
  for (const [number, text] of says.entries()) {
    agent.addMessage({ id: `user-${number}`, role: "user", content: text });
    await agent.runAgent({});
  }
  return { messages: agent.messages.map(({ role, content, toolCalls }) => [role, content ?? "", toolCalls?.length ?? 0]), noise };
});
