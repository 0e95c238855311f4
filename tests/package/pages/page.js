// A page with a build step: the client by its package's name, here and in a worker.

import { WSChat } from "flask-wschat";

window.heard = [];
const chat = new WSChat("/chat?user=page");
const room = chat.join("Built", { onMessage: ({ data }) => heard.push(data) });
room.say("from a page");

const worker = new Worker(new URL("./work.js", import.meta.url), { type: "module" });
worker.onmessage = ({ data }) => heard.push(...data);
