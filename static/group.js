import { WSChat } from "wschat";
import { Conversation, View, composer, deliver } from "./talk.js";
import { avatar, byId, el, plural, showStatus, toast } from "./ui.js";

const { me, login } = byId("chat").dataset;
const chat = new WSChat("/ws/group");
const view = new View();
const conversations = new Map(); // room -> Conversation
const created = new Set(); // rooms that this page made, and makes again if need be
let rooms = []; // [name, number of people]
let room = "";
let people = new Set();

showStatus(chat, login);

function conversationOf(name) {
  if (!conversations.has(name)) {
    const conversation = new Conversation(me);
    conversation.retry = (item) => say(name, item);
    conversations.set(name, conversation);
  }
  return conversations.get(name);
}

const say = (name, item) =>
  deliver(chat, conversationOf(name), item, "say", { room: name });

async function enter(name) {
  room = name;
  people = new Set();
  byId("room").textContent = name;
  document.title = `${name} · Flask-WSChat`;
  const conversation = conversationOf(name);
  view.show(conversation, "Nothing here yet. Say hello!");
  draw();
  if (chat.state !== "open") return; // "open" enters again
  try {
    const reply = await chat.request("join", { room: name, create: created.has(name) });
    if (room !== name) return;
    people = new Set(reply.present);
    view.update(() => reply.messages.forEach((message) => conversation.add(message)), true);
    conversation.unsent.forEach((item) => say(name, item));
    draw();
  } catch (error) {
    if (error.code === "disconnected") return;
    toast(error.message);
    if (error.code !== "timeout" && name !== rooms[0]?.[0]) go(rooms[0][0]);
  }
}

/** The address says which room it is, so that it can be opened in another tab. */
function go(name) {
  location.hash = encodeURIComponent(name);
}

function roomInAddress() {
  try {
    return decodeURIComponent(location.hash.slice(1));
  } catch {
    return ""; // somebody else wrote this address
  }
}

function draw() {
  byId("rooms").replaceChildren(...rooms.map(([name, count]) => {
    const badge = el("span", { className: "badge", title: plural(count, "person", "people") }, count);
    const link = el("a", { href: `#${encodeURIComponent(name)}` },
      el("span", { className: "name" }, name), badge);
    badge.hidden = !count;
    if (name === room) link.ariaCurrent = "true";
    return el("li", {}, link);
  }));
  byId("people").replaceChildren(...[...people].sort().map((name) =>
    el("li", {}, avatar(name), el("span", { className: "name" }, name),
      name === me ? el("span", { className: "hint" }, "you") : "")));
  byId("summary").textContent = people.size
    ? `${plural(people.size, "person", "people")} here` : "";
}

chat.onState(({ state }) => {
  if (state === "open" && room) enter(room);
});

chat.on("hello", ({ user }) => {
  if (user !== me) location.reload(); // another tab logged in with another name
});

chat.on("rooms", (message) => {
  rooms = message.rooms;
  if (!room) enter(roomInAddress() || rooms[0][0]);
  else draw();
});

chat.on("message", (message) => {
  if (message.room === room) view.update(() => conversationOf(room).add(message));
});

chat.on("presence", ({ room: where, joined, left }) => {
  if (where !== room) return;
  view.update(() => {
    for (const name of joined) {
      if (!people.has(name)) conversationOf(room).note(name, true);
      people.add(name);
    }
    for (const name of left) {
      if (people.delete(name)) conversationOf(room).note(name, false);
    }
  });
  draw();
});

composer((data) => {
  let item;
  view.update(() => (item = view.conversation.write(data)), true);
  say(room, item);
});

addEventListener("hashchange", () => {
  const name = roomInAddress() || rooms[0]?.[0];
  if (name && name !== room) enter(name);
});

// In a narrow window the list of people is folded away.
byId("who").addEventListener("click", () => {
  const shown = byId("chat").classList.toggle("show-people");
  byId("who").ariaExpanded = String(shown);
});

byId("create").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = byId("new-room").value.trim().replace(/\s+/g, " ");
  if (!name) return;
  byId("new-room").value = "";
  created.add(name);
  go(name);
  byId("words").focus();
});
