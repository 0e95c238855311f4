import { WSChat } from "flask-wschat";

const chat = new WSChat("/chat?user=worker");
const room = chat.join("Work", { onMessage: ({ data }) => postMessage([data]) });
room.say("from a worker");
