// A program that joins, says, and goes on where it was when it has been cut off.
//
//     node node.js ws://127.0.0.1:5000/chat?user=ann [ws]

import { WSChat } from "flask-wschat";

const [url, name] = process.argv.slice(2);
const options = name === "ws" ? { WebSocket: (await import("ws")).WebSocket } : {};
const chat = new WSChat(url, options);
chat.onState(({ state, attempt }) => console.log(`state ${state} ${attempt}`));
let room;
const heard = new Promise((resolve) => {
  room = chat.join(`Node ${name}`, {
    onMessage({ data, seq }) {
      console.log(`heard ${data} as ${seq}`);
      if (data === "last") resolve();
    },
  });
});
await room.say("first");
await new Promise((lost) => chat.onState(({ state }) => state !== "open" && lost()));
const stored = await room.say("last");
await heard;
console.log(`stored ${stored.seq}`);
chat.close();
