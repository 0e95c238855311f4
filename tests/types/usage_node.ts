/** In Node there is no DOM: the types do without it, and take the class of `ws`. */

import { WebSocket } from "ws";
import { WSChat, RequestError } from "flask-wschat";

const chat = new WSChat("ws://127.0.0.1:5000/chat", { WebSocket });
chat.on("*", (message) => {
  if (message instanceof ArrayBuffer) message.byteLength;
});
chat.send(Buffer.from("bytes"));
try {
  await chat.join("Lobby").say("from Node", { signal: AbortSignal.timeout(1000) });
} catch (error) {
  if (error instanceof RequestError) console.error(error.code);
}
chat.close();
