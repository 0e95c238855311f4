import { Conversation, View, composer, wordsOf } from "./talk.js";
import { avatar, byId, el, inFrame, nameOf, showList, showStatus, toast } from "./ui.js";

const page = byId("chat");
const { me, login, socket } = page.dataset;
const chat = new WSChat(socket);
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
function update(user, change, now = false) {
  const conversation = conversationWith(user);
  if (user === peer) view.update(() => change(conversation), now);
  else change(conversation);
}

function take(message, live) {
  const { from, to, data } = message;
  if (from === null) return live && toast(wordsOf(data)); // the application's
  const user = from === me ? to : from;
  const shown = user === peer;
  update(user, (conversation) => {
    const news = conversation.add(message);
    const seen = shown && !document.hidden;
    if (news && live && !seen && from !== me) conversation.unread += 1;
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

const personItem = (user) => {
  const badge = el("span", { className: "badge strong" }, el("span"),
    el("span", { className: "hidden" }, " unread"));
  return el("li", {}, el("a", { href: `#${encodeURIComponent(user)}` },
    avatar(nameOf(user)), el("span", { className: "name" }, nameOf(user)),
    el("span", { className: "hidden" }), badge));
};

const draw = inFrame(() => {
  const others = new Set([...online, ...conversations.keys()]);
  others.delete(me);
  const order = [...others].sort((a, b) =>
    online.has(b) - online.has(a) || a.localeCompare(b));
  showList(byId("people"), order, personItem, (item, user) => {
    const { unread = 0 } = conversations.get(user) ?? {};
    const [link] = item.children;
    const [, , state, badge] = link.children;
    item.className = state.textContent = online.has(user) ? "online" : "offline";
    badge.firstElementChild.textContent = unread;
    badge.hidden = !unread;
    link.ariaCurrent = user === peer ? "true" : null;
  });
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
});

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
    const mark = (user) => update(user, (conversation) => conversation.lost(), true);
    if (caughtUp) [...conversations.keys()].forEach(mark);
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
  conversation.deliver(view.write(data));
  draw();
});

addEventListener("hashchange", () => open(personInAddress()));
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && peer) conversationWith(peer).unread = 0;
  draw();
});
byId("back").addEventListener("click", () => {
  const left = peer;
  location.hash = "";
  open(""); // the list is shown from now on, and can have the focus
  byId("people").querySelector(`[data-key="${CSS.escape(left)}"] a`)?.focus();
});
open(personInAddress());
