// wschat.js and the server, with a bad network between them. All at the same time, as most
// of them wait.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { after, describe, it } from "node:test";

import {
  Member, Server, closeAll, endServers, numbers, sleep, until,
} from "./support.mjs";
import { SEED, chance } from "../chance.mjs";

after(async () => {
  closeAll();
  await endServers();
});

/** Serve for one test. */
async function serving(test, storage, env) {
  const server = await Server.start(storage, env);
  test.after(() => server.stop());
  return server;
}

/** What is said arrives: it is as before. */
async function works(member) {
  await member.say("works");
  await until(() => member.words().includes("works"), () => `it is shown: ${member}`);
  assert.deepEqual(member.failed, []);
}

describe("a bad network", { concurrency: true }, () => {
  for (const [name, network] of [
    ["all packets", { up: false, down: false, fresh: "hang" }],
    ["those to the server", { up: false, fresh: "hang" }],
    ["those from the server", { down: false, fresh: "hang" }],
  ]) {
    it(`that swallows ${name} is known within 10 s, and it comes back`, async (test) => {
      const server = await serving(test);
      const ann = await new Member(server.url()).ready();
      await sleep(3000 * Math.random()); // anywhere between two pings
      server.network.set(network);
      const known = await ann.becomes("reconnecting");
      assert.ok(known < 10_000, `known after ${known} ms`);
      server.network.set();
      const back = await ann.becomes("open");
      assert.ok(back < 12_000, `back after ${back} ms`);
      await works(ann);
    });
  }

  it("that has forgotten a connection is known within 10 s", async (test) => {
    const server = await serving(test);
    const ann = await new Member(server.url()).ready();
    server.network.lose();
    const known = await ann.becomes("reconnecting");
    assert.ok(known < 10_000, `known after ${known} ms`);
    const back = await ann.becomes("open");
    assert.ok(back < 5000, `back after ${back} ms`);
    await works(ann);
  });

  it("with nobody behind it is given up each 10 s, and tried again", async (test) => {
    const server = await serving(test);
    const ann = await new Member(server.url()).ready();
    server.network.set({ fresh: "hang" });
    server.network.cut();
    const before = server.network.accepted;
    await until(() => server.network.accepted > before + 1, () => `a second attempt: ${ann}`);
    assert.equal(ann.state, "reconnecting");
    server.network.set();
    const back = await ann.becomes("open");
    assert.ok(back < 15_000, `back after ${back} ms`);
    await works(ann);
  });

  it("100 ms away: 50 says in less than a second, in order, each once", async (test) => {
    // With the limit that a chat has unless it is told otherwise.
    const server = await serving(test, "memory", { TEST_WSCHAT_RATE_LIMIT: "[50, 200]" });
    const ann = await new Member(server.url()).ready();
    assert.deepEqual(ann.chat.hello.limits.rate, { per_second: 50, burst: 200 });
    server.network.set({ delay: 50 }); // each way
    const times = [];
    while (!(Math.min(...times) < 1000) && times.length < 3) { // others may have the processor
      ann.shown.length = ann.stored.length = 0;
      const begun = performance.now();
      await Promise.all(numbers(50).map((n) => ann.say(n)));
      times.push(performance.now() - begun);
      await until(() => ann.shown.length >= 50, () => `all are shown: ${ann}`);
      assert.deepEqual(ann.words(), numbers(50));
      assert.deepEqual(ann.stored.map(({ data }) => data), numbers(50));
    }
    assert.ok(Math.min(...times) < 1000, `acknowledged after ${times} ms`);
  });

  it("that is slow gets a large message through in the end", async (test) => {
    const server = await serving(test);
    const ann = await new Member(server.url()).ready();
    const ben = await new Member(server.url("ben")).ready();
    server.network.set({ rate: 10_000 });
    const large = randomBytes(45_000).toString("base64"); // which no compression makes small
    await Promise.all([ann.say(large), ann.say("y")]);
    await until(() => ben.shown.length === 2, () => `it is shown: ${ben}`, 50_000);
    assert.deepEqual(ben.words(), [large, "y"]);
  });

  for (const storage of ["memory", "sqlite"]) {
    it(`cuts at any moment (${storage}): 5 rooms, 200 says, each once, in order`, async (test) => {
      const random = chance(SEED);
      const server = await serving(test, storage);
      const rooms = numbers(5).map((n) => `room ${n}`);
      const [ann, ben] = ["ann", "ben"].map((user) => new Member(server.url(user), rooms));
      await Promise.all([ann.ready(), ben.ready()]);
      let said = 0;
      while (said < 200) {
        for (let n = 10 * random(); n > 0 && said < 200; n--) ann.say(said, rooms[said++ % 5]);
        await sleep(20 * random());
        if (random() < 0.2) server.network[random() < 0.5 ? "cut" : "close"]();
        server.network.set({ delay: 10 * random() });
      }
      const what = (member) => `SEED=${SEED} ${server.network.accepted} connections: ${member}`;
      for (const member of [ann, ben]) {
        await until(() => member.shown.length >= 200, () => what(member));
      }
      await until(() => ann.stored.length === 200, () => what(ann));
      for (const member of [ann, ben]) {
        for (const [n, room] of rooms.entries()) {
          assert.deepEqual(member.words(room), numbers(40).map((m) => 5 * m + n), what(member));
        }
        assert.deepEqual([member.failed, member.resets], [[], 0], what(member));
      }
      assert.ok(server.network.accepted > 4, what(ann));
    });
  }

  it("that was away for longer than a request may take leaves the next one open", async (test) => {
    const server = await serving(test);
    const ann = await new Member(server.url()).ready();
    server.network.set({ fresh: "reset" });
    server.network.cut();
    await ann.becomes("reconnecting");
    const asked = ann.chat.request("who", { room: "Lobby" }); // answered only once it is joined
    asked.catch(() => {});
    const said = ann.say("waited");
    await sleep(11_000);
    server.network.set();
    await ann.becomes("open");
    const { accepted } = server.network;
    await said;
    const answer = await asked.then(({ ok }) => ok, ({ code }) => code);
    assert.ok(answer === true || answer === "not_joined", String(answer));
    await sleep(6000);
    assert.deepEqual([ann.state, server.network.accepted], ["open", accepted], `${ann}`);
    assert.deepEqual(ann.words(), ["waited"]);
  });

  for (const status of [401, 403]) {
    it(`is not what a ${status} is, which is for ever`, async (test) => {
      const server = await serving(test);
      const ann = new Member(`${server.url()}&refused=${status}`);
      await ann.becomes("closed");
      const { state, code, attempt, retryAt } = ann.states.at(-1);
      assert.deepEqual({ state, code, retryAt }, { state: "closed", code: status, retryAt: 0 });
      assert.ok(attempt >= 1);
      const { accepted } = server.network;
      await sleep(3000);
      assert.equal(server.network.accepted, accepted);
    });
  }

  it("is passed with a fresh ticket each time, also after one that has expired", async (test) => {
    const server = await serving(test);
    const address = `http://127.0.0.1:${server.port}/ticket?user=tim&seconds=`;
    const given = [];
    const ticket = async () => {
      const seconds = [30, 0.001, 30][given.length] ?? 30;
      given.push(await (await fetch(address + seconds)).text());
      await sleep(20); // which is too long for the second one
      return given.at(-1);
    };
    const url = `ws://127.0.0.1:${server.network.port}/chat`;
    const tim = await new Member(url, ["Lobby"], { ticket }).ready();
    assert.equal(tim.chat.hello.user, "tim");
    server.network.cut();
    await tim.becomes("reconnecting");
    await tim.becomes("open");
    assert.ok(given.length > 2, `${given.length} tickets`); // one of them too late
    await works(tim);
  });

  it("ends where each ticket is refused, or there is none", async (test) => {
    const server = await serving(test);
    const url = `ws://127.0.0.1:${server.network.port}/chat`;
    for (const ticket of [async () => "none.of.ours", async () => null]) {
      const tim = new Member(url, ["Lobby"], { ticket });
      await tim.becomes("closed");
      assert.equal(tim.states.at(-1).code, 401);
    }
    const { accepted } = server.network;
    await sleep(2000);
    assert.equal(server.network.accepted, accepted);
  });

  it("is no refusal where a ticket was used up in vain", async (test) => {
    const server = await serving(test, "memory", { TEST_WSCHAT_MAX_CONNECTIONS_PER_USER: "1" });
    const first = await new Member(server.url("tim")).ready();
    let given = 0;
    const ticket = async () => {
      given++;
      return (await fetch(`http://127.0.0.1:${server.port}/ticket?user=tim`)).text();
    };
    const tim = new Member(server.url().replace(/\?.*/, ""), ["Lobby"], { ticket });
    await until(() => given > 5 || tim.state === "closed", () => `it goes on: ${tim}`);
    assert.equal(tim.state, "reconnecting", `${tim}`);
    first.chat.close();
    await tim.ready();
    await works(tim);
  });

  it("may say 1000 for the server, which is no end", async (test) => {
    const server = await serving(test);
    const ann = await new Member(server.url()).ready();
    server.network.inject([0x88, 2, 0x03, 0xe8]); // a close frame
    await ann.becomes("reconnecting");
    assert.equal(ann.states.at(-1).code, 1000);
    await ann.becomes("open");
    await works(ann);
  });

  it("is tried at once where the page says so", async (test) => {
    const server = await serving(test);
    const ann = await new Member(server.url()).ready();
    server.network.set({ fresh: "reset" });
    server.network.cut();
    const wait = () => ann.states.at(-1).retryAt - Date.now();
    await until(() => wait() > 4000, () => `a long wait: ${ann}`);
    server.network.set();
    ann.chat.reconnect();
    const back = await ann.becomes("open");
    assert.ok(back < 2500, `back after ${back} ms`);
    await works(ann);
  });

  for (const seconds of [1, 12, 40]) {
    it(`or a server that stands still for ${seconds} s loses and doubles nothing`, async (test) => {
      const server = await serving(test);
      const ann = await new Member(server.url()).ready();
      const ben = await new Member(server.url("ben")).ready();
      for (const n of numbers(10)) ann.say(n); // some are on their way
      await sleep(3);
      server.signal("SIGSTOP");
      for (const n of numbers(20)) ann.say(10 + n);
      for (let waited = 0; waited < seconds; waited++) {
        await sleep(1000);
        ann.say(30 + waited);
      }
      server.signal("SIGCONT");
      const all = numbers(30 + seconds);
      for (const member of [ann, ben]) {
        await until(() => member.words().length >= all.length, () => `all are shown: ${member}`);
        assert.deepEqual(member.words(), all);
        assert.deepEqual([member.failed, member.resets], [[], 0], `${member}`);
      }
      await until(() => ann.stored.length === all.length, () => `all are acknowledged: ${ann}`);
      if (seconds === 40) assert.ok(ann.states.length > 3, `it was known: ${ann}`);
    });
  }

  it("or a server that is killed loses and doubles nothing", async (test) => {
    const server = await serving(test, "sqlite");
    const ann = await new Member(server.url()).ready();
    const ben = await new Member(server.url("ben")).ready();
    for (let time = 0; time < 3; time++) {
      for (const n of numbers(30)) ann.say(30 * time + n);
      await until(() => ann.stored.length > 30 * time, () => `one is stored: ${ann}`);
      await server.restart();
    }
    for (const member of [ann, ben]) {
      await until(() => member.words().length >= 90, () => `all are shown: ${member}`);
      assert.deepEqual(member.words(), numbers(90));
      assert.deepEqual([member.failed, member.resets], [[], 0], `${member}`);
    }
  });
});
