// A program that uses all of hub.js, for the compiler of TypeScript: that it is taken shows that hub.d.ts says enough;
// what must not be taken is marked.
import { Gap, HubClient, HubError, Received } from "../../templates/static/hub.js";

const hub = new HubClient("http://127.0.0.1:3141", {
  topics: new Set(["task:*"]),
  after: "351cefe1:3",
  heartbeat: 10,
  onstate: (state, delay) => console.log(state === "waiting", delay?.toFixed()),
  connect: (url) => new WebSocket(url.href),
});

async function use(): Promise<void> {
  const { id, cursor } = await hub.publish("task:progress", { id: "build" }, { id: "mine", ttl: 60 });
  const options = { key: id, confirm: cursor, signal: AbortSignal.timeout(1), onprogress: (data: unknown) => data };
  const sum: number = await hub.call<number>("math:add", { a: 1, b: 2 }, options);
  const { answer, by } = await hub.ask("Go on?", ["yes", "no"], { default: "no", timeout: 60, whileConnected: true });
  const { items } = await hub.state(["task:*"]);
  const serve = async ({ n }: { n: number }, call: { signal: AbortSignal; progress(data: object): void }) => {
    call.progress({ percent: 50 });
    if (call.signal.aborted) throw new HubError({ error: "There is nothing.", code: "command_failed" });
    return n * sum;
  };
  await hub.provide("math:double", serve, { summary: "Double it.", args: { type: "object" }, effect: "read" });
  console.log(answer.length, by?.length, items[0]?.stale);
  for await (const item of hub) {
    if (item instanceof Gap) console.log(item.count ?? "some", item.reason === "slow");
    else console.log((item satisfies Received).name, item.data.progress, hub.cursor?.length);
  }
  hub.close();
}

use().catch((error: unknown) => error instanceof HubError && console.log(error.code, error.retryAfter));

// @ts-expect-error a name is a text
hub.publish(1);
// @ts-expect-error there is no such option
new HubClient("http://127.0.0.1:3141", { topic: "task:*" });
// @ts-expect-error a cursor is read only
hub.cursor = "351cefe1:3";
// @ts-expect-error there is no such effect
hub.provide("a:b", () => 1, { effect: "harmless" });
