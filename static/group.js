import { WSChat } from "wschat";
import { Conversation, View, composer } from "./talk.js";
import { avatar, byId, el, nameOf, plural, showStatus, toast } from "./ui.js";

const { me, login, rooms } = byId("chat").dataset;
const [first, ...more] = JSON.parse(rooms); // as on the wire: with a # before the name
const chat = new WSChat("/ws/chat");
const watch = new WSChat("/ws/home"); // without a user, so that nobody is counted by it
const view = new View();
const conversations = new Map(); // room -> Conversation
const counts = new Map(); // room -> number of people
let room = "";
let people = new Set();

showStatus(chat, login);

function conversationOf(name) {
  if (!conversations.has(name)) {
    const send = (data) => chat.say(name, data);
    conversations.set(name, new Conversation(me, send, () => leave(name)));
  }
  return conversations.get(name);
}

function enter(name) {
  const before = room;
  const conversation = conversationOf(name);
  const { seq, epoch } = conversation.feed ?? {}; // where I left it
  const change = (what) => (name === room ? view.update(what) : what());
  room = name;
  people = new Set();
  byId("room").textContent = name.slice(1);
  document.title = `${name.slice(1)} · Flask-WSChat`;
  view.show(conversation, "Nothing here yet. Say hello!");
  conversation.feed = chat.join(name, {
    seq,
    epoch,
    onMessage: (message) => change(() => conversation.add(message)),
    onReset: (messages) => change(() => conversation.reset(messages)),
    onPresence: (present, news) => name === room && meet(conversation, present, news),
    onError(error) {
      if (name !== room) return;
      toast(error.message);
      if (name !== first) go(first);
    },
  });
  leave(before);
  draw();
}

/** Leave a room that is not shown any more, once what I said there is stored. */
function leave(name) {
  const conversation = conversations.get(name);
  if (name !== room && !conversation?.busy) conversation?.feed.leave();
}

function meet(conversation, present, { joined, left }) {
  view.update(() => {
    for (const user of joined) {
      if (!people.has(user)) conversation.note(nameOf(user), true);
    }
    for (const user of left) {
      if (people.has(user)) conversation.note(nameOf(user), false);
    }
  });
  people = new Set(present);
  draw();
}

function list(name) {
  counts.set(name, counts.get(name) ?? 0);
  watch.join(name, {
    onPresence(present) {
      counts.set(name, present.length);
      draw();
    },
    onError() { // forgotten by the server; whoever enters it makes it again
      counts.delete(name);
      draw();
    },
  });
}

/** The address says which room it is, so that it can be opened in another tab. */
function go(name) {
  location.hash = encodeURIComponent(name.slice(1));
}

function roomInAddress() {
  try {
    const name = decodeURIComponent(location.hash.slice(1));
    return name ? `#${name}`.normalize() : first;
  } catch {
    return first; // somebody else wrote this address
  }
}

function draw() {
  byId("rooms").replaceChildren(...[...counts].map(([name, count]) => {
    const badge = el("span", { className: "badge", title: plural(count, "person", "people") }, count);
    const link = el("a", { href: `#${encodeURIComponent(name.slice(1))}` },
      el("span", { className: "name" }, name.slice(1)), badge);
    badge.hidden = !count;
    if (name === room) link.ariaCurrent = "true";
    return el("li", {}, link);
  }));
  byId("people").replaceChildren(...[...people].sort().map((user) =>
    el("li", {}, avatar(nameOf(user)), el("span", { className: "name" }, nameOf(user)),
      user === me ? el("span", { className: "hint" }, "you") : "")));
  byId("summary").textContent = people.size
    ? `${plural(people.size, "person", "people")} here` : "";
}

chat.on("hello", ({ user }) => {
  if (user && user !== me) location.reload(); // another tab logged in with another name
});

composer((data) => {
  const { conversation } = view;
  let item;
  view.update(() => (item = conversation.write(data)), true);
  conversation.deliver(item);
});

addEventListener("hashchange", () => {
  const name = roomInAddress();
  if (name !== room) enter(name);
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
  go(`#${name}`);
  byId("words").focus();
});

[first, ...more].forEach(list);
chat.join("group", { onMessage: ({ data }) => list(data) }); // the rooms that people make
enter(roomInAddress());
