// What every judge shares: a list of tasks as JSON on stdin, a list of verdicts as JSON on stdout.
import { text } from "node:stream/consumers";

/** Ask the client once for each task; whatever it throws is part of its verdict. */
export async function judge(ask) {
  const verdicts = [];
  for (const task of JSON.parse(await text(process.stdin))) {
    try {
      verdicts.push({ ok: true, ...(await ask(task)) });
    } catch (error) {
      verdicts.push({ ok: false, error: { name: error.name, message: String(error.message), status: error.status ?? error.statusCode ?? null } });
    }
  }
  process.stdout.write(JSON.stringify(verdicts));
}
