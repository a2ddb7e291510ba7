// node turns.mjs <base>: the verdicts of turns_judge.js as JSON, with the client that the server at <base> serves.
import { judge } from "./turns_judge.js";

const base = process.argv[2];
const source = await (await fetch(`${base}/client/agent_server.js`)).text();
const client = await import(`data:text/javascript,${encodeURIComponent(source)}`);
console.log(JSON.stringify(await judge(base, client)));
process.exit(0);
