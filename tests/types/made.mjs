/** Print the names of all that a WSChat makes: `node made.mjs URL-OF-WSCHAT.JS`. */

const { WSChat } = await import(process.argv[2]);

const chat = new WSChat("ws://localhost/", {
  WebSocket: class {
    close() {}
  },
});
const names = (thing) => {
  const found = new Set();
  for (let at = thing; at !== Object.prototype; at = Object.getPrototypeOf(at)) {
    for (const name of Object.getOwnPropertyNames(at)) found.add(name);
  }
  return [...found].filter((name) => name !== "constructor");
};
const made = {
  WSChat: names(chat),
  Room: names(chat.join("Lobby")),
  Inbox: names(chat.inbox()),
  Poll: names(chat.poll("Biscuits")),
};
chat.close();
console.log(JSON.stringify(made));
