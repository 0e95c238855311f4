// A page that is hidden; in a process of its own, as `document` is everybody's.

import assert from "node:assert/strict";
import { after, describe, it } from "node:test";

import { Member, Server, closeAll, endServers } from "./support.mjs";

globalThis.document = { hidden: true };

after(async () => {
  closeAll();
  await endServers();
});

describe("a hidden page", () => {
  it("knows a dead network within 40 s, and comes back by itself", async (test) => {
    const server = await Server.start();
    test.after(() => server.stop());
    const ann = await new Member(server.url()).ready();
    server.network.vanish();
    const known = await ann.becomes("reconnecting", 60_000);
    assert.ok(known < 40_000, `known after ${known} ms`);
    server.network.set();
    const back = await ann.becomes("open");
    assert.ok(back < 12_000, `back after ${back} ms`);
  });
});
