import { WSChat } from "wschat";
import { Conversation, View, composer, deliver } from "./talk.js";
import { avatar, byId, el, showStatus } from "./ui.js";

const page = byId("chat");
const { me, login } = page.dataset;
const chat = new WSChat("/ws/private");
const view = new View();
const conversations = new Map(); // person -> Conversation
let online = new Set();
let peer = "";
let caughtUp = false; // the inbox was read once

showStatus(chat, login);

function conversationWith(name) {
  if (!conversations.has(name)) {
    const conversation = new Conversation(me);
    conversation.retry = (item) => tell(name, item);
    conversations.set(name, conversation);
  }
  return conversations.get(name);
}

const tell = (name, item) =>
  deliver(chat, conversationWith(name), item, "tell", { to: name });

function take(message, live) {
  const name = message.from === me ? message.to : message.from;
  const conversation = conversationWith(name);
  const change = () => {
    const news = conversation.add(message);
    const seen = name === peer && !document.hidden;
    if (news && live && !seen && message.from !== me) conversation.unread += 1;
  };
  if (name === peer) view.update(change);
  else change();
}

function open(name) {
  peer = name;
  page.classList.toggle("open", Boolean(name));
  byId("composer").hidden = !name;
  byId("peer").textContent = name || "Your conversations";
  const conversation = name ? conversationWith(name) : new Conversation(me);
  conversation.unread = 0;
  view.show(conversation, name
    ? `Nobody but you and ${name} can read this.`
    : "Choose somebody to talk to.");
  draw();
}

function draw() {
  const others = new Set([...online, ...conversations.keys()]);
  others.delete(me);
  const order = [...others].sort((a, b) =>
    online.has(b) - online.has(a) || a.localeCompare(b));
  byId("people").replaceChildren(...order.map((name) => {
    const { unread = 0 } = conversations.get(name) ?? {};
    const here = online.has(name);
    const badge = el("span", { className: "badge strong" }, unread,
      el("span", { className: "hidden" }, " unread"));
    badge.hidden = !unread;
    const link = el("a", { href: `#${encodeURIComponent(name)}` },
      avatar(name), el("span", { className: "name" }, name),
      el("span", { className: "hidden" }, here ? "online" : "offline"), badge);
    if (name === peer) link.ariaCurrent = "true";
    return el("li", { className: here ? "online" : "offline" }, link);
  }));
  const ready = caughtUp && chat.state === "open";
  const away = Boolean(peer && ready && !online.has(peer));
  byId("alone").hidden = !caughtUp || order.length > 0;
  byId("summary").textContent = peer && ready ? (away ? "offline" : "online") : "";
  byId("banner").hidden = !away;
  byId("banner").textContent = away
    ? `${peer} is offline. What you write now is not sent; wait until ${peer} is back.` : "";
  let unread = 0;
  for (const conversation of conversations.values()) unread += conversation.unread;
  document.title = `${unread ? `(${unread}) ` : ""}Private chat · Flask-WSChat`;
}

async function catchUp() {
  try {
    const reply = await chat.request("inbox");
    online = new Set(reply.present);
    for (const message of reply.messages) take(message, caughtUp);
    caughtUp = true;
    for (const [name, conversation] of conversations) {
      for (const item of conversation.unsent) tell(name, item);
    }
  } catch (error) {
    if (error.code === "timeout") catchUp();
  }
  draw();
}

function personInAddress() {
  try {
    return decodeURIComponent(location.hash.slice(1));
  } catch {
    return ""; // somebody else wrote this address
  }
}

chat.onState(({ state }) => {
  if (state === "open") catchUp();
  draw();
});

chat.on("hello", ({ user }) => {
  if (user !== me) location.reload(); // another tab logged in with another name
});

chat.on("direct", (message) => {
  take(message, true);
  draw();
});

chat.on("presence", ({ joined, left }) => {
  for (const name of joined) online.add(name);
  for (const name of left) online.delete(name);
  draw();
});

composer((data) => {
  let item;
  view.update(() => (item = view.conversation.write(data)), true);
  tell(peer, item);
  draw();
});

addEventListener("hashchange", () => open(personInAddress()));
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && peer) conversationWith(peer).unread = 0;
  draw();
});
byId("back").addEventListener("click", () => (location.hash = ""));
open(personInAddress());
