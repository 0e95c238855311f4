import { WSChat } from "wschat";
import { Conversation, View, composer } from "./talk.js";
import { avatar, byId, el, nameOf, showStatus } from "./ui.js";

const page = byId("chat");
const { me, login } = page.dataset;
const chat = new WSChat("/ws/chat");
const view = new View();
const conversations = new Map(); // user -> Conversation
let online = new Set();
let peer = "";
let caughtUp = false; // the inbox was read once

showStatus(chat, login);

function conversationWith(user) {
  if (!conversations.has(user)) {
    const send = (data) => chat.tell(user, data);
    conversations.set(user, new Conversation(me, send));
  }
  return conversations.get(user);
}

/** Run `change` on the conversation with `user`, whether it is shown or not. */
function update(user, change) {
  const conversation = conversationWith(user);
  if (user === peer) view.update(() => change(conversation));
  else change(conversation);
}

function take(message, live) {
  const user = message.from === me ? message.to : message.from;
  update(user, (conversation) => {
    const news = conversation.add(message);
    const seen = user === peer && !document.hidden;
    if (news && live && !seen && message.from !== me) conversation.unread += 1;
  });
}

function open(user) {
  peer = user;
  page.classList.toggle("open", Boolean(user));
  byId("composer").hidden = !user;
  byId("peer").textContent = nameOf(user) || "Your conversations";
  const conversation = user ? conversationWith(user) : new Conversation(me);
  conversation.unread = 0;
  view.show(conversation, user
    ? `Nobody but you and ${nameOf(user)} can read this.`
    : "Choose somebody to talk to.");
  draw();
}

function draw() {
  const others = new Set([...online, ...conversations.keys()]);
  others.delete(me);
  const order = [...others].sort((a, b) =>
    online.has(b) - online.has(a) || a.localeCompare(b));
  byId("people").replaceChildren(...order.map((user) => {
    const { unread = 0 } = conversations.get(user) ?? {};
    const here = online.has(user);
    const badge = el("span", { className: "badge strong" }, unread,
      el("span", { className: "hidden" }, " unread"));
    badge.hidden = !unread;
    const link = el("a", { href: `#${encodeURIComponent(user)}` },
      avatar(nameOf(user)), el("span", { className: "name" }, nameOf(user)),
      el("span", { className: "hidden" }, here ? "online" : "offline"), badge);
    if (user === peer) link.ariaCurrent = "true";
    return el("li", { className: here ? "online" : "offline" }, link);
  }));
  const ready = caughtUp && chat.state === "open";
  const away = Boolean(peer && ready && !online.has(peer));
  byId("alone").hidden = !caughtUp || order.length > 0;
  byId("summary").textContent = peer && ready ? (away ? "offline" : "online") : "";
  byId("banner").hidden = !away;
  byId("banner").textContent = away
    ? `${nameOf(peer)} is offline, and gets what you write now on coming back.` : "";
  let unread = 0;
  for (const conversation of conversations.values()) unread += conversation.unread;
  document.title = `${unread ? `(${unread}) ` : ""}Private chat · Flask-WSChat`;
}

function personInAddress() {
  try {
    const user = decodeURIComponent(location.hash.slice(1));
    return nameOf(user) ? user : "";
  } catch {
    return ""; // somebody else wrote this address
  }
}

chat.onState(draw);

chat.on("hello", ({ user }) => {
  if (user && user !== me) location.reload(); // another tab logged in with another name
});

chat.inbox({
  onMessage(message) {
    take(message, true);
    draw();
  },
  onReset(messages) { // at first, and where the server has lost what came before
    if (caughtUp) for (const user of conversations.keys()) update(user, (shown) => shown.lost());
    for (const message of messages) take(message, caughtUp);
    caughtUp = true;
    draw();
  },
});

chat.join("private", {
  onPresence(present) {
    online = new Set(present);
    draw();
  },
});

composer((data) => {
  const { conversation } = view;
  let item;
  view.update(() => (item = conversation.write(data)), true);
  conversation.deliver(item);
  draw();
});

addEventListener("hashchange", () => open(personInAddress()));
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && peer) conversationWith(peer).unread = 0;
  draw();
});
byId("back").addEventListener("click", () => (location.hash = ""));
open(personInAddress());
