import { Conversation, View, composer } from "./talk.js";
import { avatar, byId, el, inFrame, nameOf, plural, showList, showStatus, toast } from "./ui.js";

const { me, login, rooms, socket } = byId("chat").dataset;
const [first, ...more] = JSON.parse(rooms); // as on the wire: with a # before the name
const chat = new WSChat(socket);
const { home } = document.body.dataset;
const watch = new WSChat(home); // without a user, so that nobody is counted by it
const view = new View();
const conversations = new Map(); // room -> Conversation
const counts = new Map(); // room -> number of people
let room = "";
let people = new Set();

showStatus(chat, login);

function conversationOf(name) {
  if (!conversations.has(name)) {
    const send = (data) => chat.say(name, data);
    const done = () => leave(name);
    const older = (before) => history(name, before);
    conversations.set(name, new Conversation(me, send, { done, older }));
  }
  return conversations.get(name);
}

/** The messages before number `before`, unless the numbers have begun anew. */
async function history(name, before) {
  const { epoch, messages } = await chat.request("history", { room: name, before });
  return epoch === conversations.get(name).feed.epoch ? messages : [];
}

function enter(name) {
  const before = room;
  const conversation = conversationOf(name);
  const { seq, epoch } = conversation.feed ?? {}; // where I left it
  const change = (what, now) => (name === room ? view.update(what, now) : what());
  room = name;
  people = new Set();
  byId("room").textContent = name.slice(1);
  document.title = `${name.slice(1)} · Flask-WSChat`;
  view.show(conversation, "Nothing here yet. Say hello!");
  conversation.feed = chat.join(name, {
    seq,
    epoch,
    onMessage: (message) => change(() => conversation.add(message)),
    onReset: (messages) => change(() => conversation.reset(messages), true),
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
  const came = joined.filter((user) => !people.has(user));
  const went = left.filter((user) => people.has(user));
  view.update(() => {
    for (const user of came) conversation.note(nameOf(user), true);
    for (const user of went) conversation.note(nameOf(user), false);
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

const draw = inFrame(() => {
  showList(byId("rooms"), [...counts.keys()], roomItem, (item, name) => {
    const [link] = item.children;
    const badge = link.lastElementChild;
    const count = counts.get(name);
    badge.textContent = count;
    badge.title = plural(count, "{n} person", "{n} people");
    badge.hidden = !count;
    link.ariaCurrent = name === room ? "true" : null;
  });
  showList(byId("people"), [...people].sort(), personItem, () => {});
  byId("summary").textContent = people.size
    ? plural(people.size, "{n} person here", "{n} people here") : "";
});

const roomItem = (name) => {
  const label = el("span", { className: "name" }, name.slice(1));
  const badge = el("span", { className: "badge" });
  return el("li", {}, el("a", { href: `#${encodeURIComponent(name.slice(1))}` }, label, badge));
};

const personItem = (user) =>
  el("li", {}, avatar(nameOf(user)), el("span", { className: "name" }, nameOf(user)),
    user === me ? el("span", { className: "hint" }, "you") : "");

chat.on("hello", ({ user }) => {
  if (user && user !== me) location.reload(); // another tab logged in with another name
});

composer((data) => {
  const { conversation } = view;
  conversation.deliver(view.write(data));
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
