// Three workers of gunicorn at CHAT=ws://127.0.0.1:PORT/chat, any of which may be killed.

import assert from "node:assert/strict";
import { after, test } from "node:test";

import { Proxy } from "../../support/proxy.mjs";
import { SEED, chance } from "../chance.mjs";
import { Member, closeAll, numbers, sleep, until } from "./support.mjs";

after(closeAll);

test("workers are killed, connections cut: each once, in order", async (test) => {
  const random = chance(SEED);
  const network = await Proxy.start(Number(new URL(process.env.CHAT).port));
  test.after(() => network.stop());
  const rooms = numbers(5).map((n) => `room ${n}`);
  const members = ["ann", "ben", "cy"].map(
    (user) => new Member(`ws://127.0.0.1:${network.port}/chat?user=${user}`, rooms),
  );
  const [ann] = members;
  const processes = new Map(); // of members: whom to kill
  for (const member of members) {
    member.chat.on("process", ({ pid }) => processes.set(member, pid));
  }
  await Promise.all(members.map((member) => member.ready()));
  network.set({ delay: 5 });
  const killed = new Set();
  let said = 0;
  for (let time = 0; time < 8; time++) {
    for (let n = 0; n < 25; n++) ann.say(said, rooms[said++ % 5]);
    await sleep(50 * random());
    if (time % 2) {
      network.cut();
      continue;
    }
    const member = members[time % 3];
    await until(() => !killed.has(processes.get(member)), () => `a living one: ${ann}`);
    const pid = processes.get(member);
    process.kill(pid, "SIGKILL");
    killed.add(pid);
    await until(() => processes.get(member) !== pid, () => `another one: ${ann}`);
  }
  const what = (member) => `SEED=${SEED}, ${killed.size} killed: ${member}`;
  await until(() => ann.stored.length === said, () => what(ann));
  for (const member of members) {
    await until(() => member.shown.length >= said, () => what(member));
    for (const [n, room] of rooms.entries()) {
      assert.deepEqual(member.words(room), numbers(said / 5).map((m) => 5 * m + n), what(member));
    }
    assert.deepEqual([member.failed, member.resets], [[], 0], what(member));
  }
  assert.equal(killed.size, 4, what(ann));
});
