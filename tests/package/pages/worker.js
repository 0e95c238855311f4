// A module worker, without a build step.

import { WSChat } from "/_wschat/wschat.js";

const chat = new WSChat("/chat?user=worker");
const heard = [];
const room = chat.join("Workers", {
  onMessage: ({ data }) => {
    heard.push(data);
    postMessage(heard);
  },
});
await room.say("from a worker");
