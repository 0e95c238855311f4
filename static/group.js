/** The group chat: rooms, who is in them, and what is new there. */

import { Conversation, View, composer, explain, phrase, wordsOf } from "./talk.js";
import { insert } from "./composer.js";
import { Marks, Typists, alike, mentions } from "./text.js";
import { avatar, byId, el, inFrame, isPlain, nameOf, plural, showList, showStatus, t, toast } from "./ui.js";

const LISTED = 100; // people, at once
const CROWD = 50; // where so many listen, nobody is told who is typing
const STALE = 30_000; // ms: so old may the list of a crowd be

const page = byId("chat");
const { me, login, rooms, socket } = page.dataset;
const [first, ...more] = JSON.parse(rooms); // as on the wire: with a # before the name
const refused = ({ room, mid }, error) => conversations.get(room)?.fail(mid, error);
const chat = new WSChat(socket, { outbox: "localStorage", onRefused: refused });
const watch = new WSChat(page.dataset.watch); // it sees all rooms, and nobody is counted by it
const marks = new Marks(stored(), me); // how far rooms were read
const view = new View({ onSeen: seen, onBack: () => news(view.conversation) });
const conversations = new Map(); // room -> Conversation
const listed = new Map(); // room -> { feed, count, last, called }: people, message, mention
const names = new Set(); // who may be mentioned
const typists = new Typists(4000);
let room = "";
let people = []; // who is in it, as far as they are named
let count; // how many

showStatus(chat, login);

function stored() {
  try {
    return localStorage;
  } catch {
    return undefined; // forbidden
  }
}

// ---- a room ----

function conversationOf(name) {
  if (!conversations.has(name)) {
    conversations.set(name, new Conversation(me, (data, options) => chat.say(name, data, options), {
      key: `${me} ${name}`,
      names,
      done: () => leave(name),
      older: (before) => history(name, before),
    }));
  }
  return conversations.get(name);
}

/** The messages before number `before`, unless the numbers have begun anew. */
async function history(name, before) {
  const { feed } = conversations.get(name);
  const { epoch, messages } = await feed.history({ before });
  return epoch === feed.epoch ? messages : [];
}

function enter(name) {
  const before = room;
  const conversation = conversationOf(name);
  const { feed: old, feed: { seq, epoch, tag } = {} } = conversation; // where I left it
  const change = (what, now) => (name === room ? view.update(what, now) : what());
  room = name;
  people = [];
  count = undefined;
  typists.clear();
  byId("room").textContent = name.slice(1);
  view.show(conversation, t("Nothing here yet. Say hello!"));
  let fresh = true; // it was not read since I came
  conversation.feed = chat.join(name, {
    seq,
    epoch,
    tag,
    onMessage(message) {
      know(message.from);
      if (typists.end(message.from)) drawTyping();
      change(() => conversation.add(message));
    },
    onReset(messages) {
      for (const { from } of messages) know(from);
      if (fresh) news(conversation);
      fresh = false;
      change(() => conversation.reset(messages), true);
    },
    onPresence(...present) {
      if (fresh) news(conversation);
      fresh = false;
      if (name === room) meet(conversation, ...present);
    },
    onError(error) {
      if (name !== room) return;
      toast(error.code === "bad_request" ? t("There is no such room.") : explain(error));
      if (name !== first) go(first);
    },
  });
  old?.leave(); // it may have waited for something to be stored
  leave(before);
  drawRooms();
  drawPeople();
  drawTyping();
}

/** Leave a room that is not shown any more, once what I said there is stored. */
function leave(name) {
  const conversation = conversations.get(name);
  if (name !== room && !conversation?.busy) conversation?.feed?.leave();
}

function know(user) {
  if (names.size > 5000) names.clear(); // somebody plays with names
  for (const one of [me, user]) if (one) names.add(alike(nameOf(one)));
}

// ---- what was read ----

/** Say in the log what came while nobody looked. */
function news(conversation) {
  const { name, epoch, seq } = conversation.feed;
  const watched = listed.get(name)?.feed; // it may have been read further, or less far
  const newest = watched?.epoch === epoch ? Math.max(seq, watched.seq) : seq;
  const { count, after } = marks.unread(name, { epoch, seq: newest });
  conversation.since(after, newest, count);
}

/** The room was read so far. */
function seen({ seq }) {
  const { feed } = view.conversation;
  if (!feed?.epoch) return;
  // It may be of an earlier epoch, with a higher number.
  const read = view.atEnd ? feed.seq : Math.min(seq, feed.seq);
  marks.set(feed.name, { epoch: feed.epoch, seq: read });
  drawRooms();
}

addEventListener("storage", () => drawRooms()); // another tab has read on

// ---- who is there ----

function meet(conversation, present, { joined, left }, now) {
  const came = joined.filter((user) => !people.includes(user)); // not those just shown to me
  const went = left.filter((user) => people.includes(user));
  const unnamed = joined.length || left.length ? 0 : now - (count ?? now);
  if (came.length || went.length || unnamed) {
    view.update(() => conversation.meet(came, went, unnamed));
  }
  people = present;
  count = now;
  present.forEach(know);
  for (const user of left) typists.end(user);
  drawPeople();
}

let crowd = { room: "", at: -Infinity, asked: "", people: [] }; // of a room with too many

/** Ask for names in a crowd: those that begin so. */
async function look() {
  const asked = byId("find").value.trim();
  const { feed } = view.conversation;
  const now = performance.now();
  if (crowd.room === room && crowd.asked === asked && now - crowd.at < STALE) return;
  crowd = { room, asked, at: now, people: crowd.room === room ? crowd.people : [] };
  const mine = crowd;
  const capital = asked.charAt(0).toUpperCase() + asked.slice(1);
  try {
    const spelt = [...new Set([asked, capital])].map(async (after) => {
      const { present } = await feed.who({ after: after || undefined, limit: LISTED });
      return present.filter((user) => user.startsWith(after));
    });
    mine.people = (await Promise.all(spelt)).flat();
    mine.people.forEach(know);
  } catch {} // the next time, perhaps
  if (mine === crowd) drawPeople();
}

const drawPeople = inFrame(() => {
  const many = count > people.length;
  if (many) look();
  const sought = alike(byId("find").value.trim());
  const all = many ? crowd.people : people;
  const found = all.filter((user) => alike(nameOf(user)).includes(sought));
  const shown = found.slice(0, LISTED);
  showList(byId("people"), shown, personItem, () => {});
  const hidden = (sought ? (many ? 0 : found.length) : count ?? 0) - shown.length;
  byId("others").hidden = hidden <= 0;
  byId("others").textContent = plural(hidden, "and {n} more", "and {n} more people");
  byId("find").hidden = !sought && !(count > 8);
  byId("nobody").hidden = !sought || shown.length > 0;
  const known = count && chat.state === "open"; // else it was so, and may be otherwise
  const summary = known ? plural(count, "{n} person here", "{n} people here") : "";
  byId("summary").textContent = summary;
  byId("who").textContent = summary || t("Who is here?");
});

const personItem = (user) => {
  const name = nameOf(user);
  const who = [avatar(name), el("bdi", { className: "name" }, name)];
  if (user === me) return el("li", {}, ...who, el("span", { className: "hint" }, t("you")));
  const title = t("Mention {name}", { name });
  return el("li", {}, el("button", { type: "button", title, onclick: () => insert(`@${name} `) }, ...who));
};

byId("find").addEventListener("input", () => drawPeople());

// ---- who is typing ----

function hear(user) {
  know(user);
  typists.heard(user, Date.now());
  drawTyping();
}

function drawTyping() {
  const [one, two, ...others] = typists.at(Date.now());
  const name = one && nameOf(one);
  const other = two && nameOf(two);
  let nodes = [];
  if (others.length) nodes = phrase(t("{name}, {other} and others are typing"), { name, other });
  else if (two) nodes = phrase(t("{name} and {other} are typing"), { name, other });
  else if (one) nodes = phrase(t("{name} is typing"), { name });
  byId("typing").replaceChildren(...nodes);
  clearTimeout(drawTyping.timer);
  if (one) drawTyping.timer = setTimeout(drawTyping, 1000);
}

// ---- the rooms ----

function list(name) {
  if (listed.has(name)) return;
  const entry = { count: 0 };
  const take = (message) => {
    entry.last = message;
    if (message.from !== me && mentions(wordsOf(message.data), nameOf(me))) entry.called = message.seq;
  };
  listed.set(name, entry);
  entry.feed = watch.join(name, {
    onMessage(message) {
      take(message);
      drawRooms();
    },
    onReset(messages) {
      entry.last = entry.called = undefined;
      messages.forEach(take);
      // What was said before I first heard of this room is not new to me.
      if (!marks.get(name)) marks.set(name, entry.feed);
      drawRooms();
    },
    onPresence(present, change, count) {
      entry.count = count;
      drawRooms();
    },
    onError() { // forgotten by the server; whoever enters it makes it again
      listed.delete(name);
      drawRooms();
    },
  });
}

let waiting;

/** Show how the rooms stand, some times a second, however much is said in them. */
function drawRooms() {
  waiting ??= setTimeout(showRooms, 150);
}

function showRooms() {
  waiting = undefined;
  let unread = 0;
  showList(byId("rooms"), [...listed.keys()], roomItem, (item, name) => {
    const { count, last, called, feed } = listed.get(name);
    const { count: fresh, after } = marks.unread(name, feed);
    const [link] = item.children;
    const part = (className) => link.querySelector(`.${className}`);
    const calls = fresh > 0 && called > after;
    const news = plural(fresh, "{n} unread message", "{n} unread messages");
    part("badge").hidden = !fresh;
    part("badge").classList.toggle("strong", calls);
    write(part("badge").firstElementChild, `${calls ? "@ " : ""}${fresh > 99 ? "99+" : fresh}`);
    write(part("badge").lastElementChild, calls ? t("{news}, you are mentioned", { news }) : news);
    write(part("count"), t("{n} here", { n: count }));
    part("count").hidden = !count;
    if (part("last").dataset.at !== String(last?.at)) preview(part("last"), last);
    link.ariaCurrent = name === room ? "true" : null;
    unread += fresh;
  });
  document.title = `${unread ? `(${unread}) ` : ""}${room.slice(1)} · Flask-WSChat`;
}

/** Change a text only if it is another one. */
function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function preview(node, last) {
  node.dataset.at = last?.at;
  if (!last) return node.replaceChildren();
  const who = last.from === me ? t("You") : nameOf(last.from ?? "");
  node.replaceChildren(...phrase(t("{name}: {words}"), { name: who, words: wordsOf(last.data).slice(0, 80) }));
}

const addressOf = (name) => `#${encodeURIComponent(name.slice(1))}`;

const roomItem = (name) => el("li", {}, el("a", {
  href: addressOf(name),
  onclick: (event) => isPlain(event) && go(name),
},
  el("bdi", { className: "name" }, name.slice(1)),
  el("span", { className: "badge" }, el("span", { ariaHidden: "true" }), el("span", { className: "hidden" })),
  el("span", { className: "last" }),
  el("span", { className: "count" })));

/** The address says which room it is, so that it can be opened in another tab. */
function go(name) {
  location.hash = addressOf(name);
  follow(); // at once: what somebody types next is for that room
}

function follow() {
  const name = roomInAddress();
  if (name !== room) enter(name);
}

function roomInAddress() {
  try {
    const name = decodeURIComponent(location.hash.slice(1));
    return name.trim() ? `#${name.trim().replace(/\s+/g, " ")}`.normalize() : first;
  } catch {
    return first; // somebody else wrote this address
  }
}

chat.onState(drawPeople);
chat.on("typing", ({ room: where, from }) => where === room && from !== me && hear(from));

chat.on("hello", ({ user }) => {
  if (user && user !== me) location.reload(); // another tab logged in with another name
  // What a page before this one has not got rid of is said by this one.
  for (const { room, mid, data, at } of chat.waiting) {
    const conversation = conversationOf(room);
    if (!conversation.has(mid)) conversation.write(data, { mid, at });
  }
});

composer(chat, (data) => {
  const { conversation } = view;
  conversation.deliver(view.write(data));
}, {
  typing: () => count > 1 && count <= CROWD
    && view.conversation.feed.emit("typing").catch(() => {}),
});

addEventListener("hashchange", follow);

// In a narrow window the list of people is folded away.
byId("who").addEventListener("click", () => {
  const shown = page.classList.toggle("show-people");
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

know(me);
[first, ...more].forEach(list);
watch.join("group", { onMessage: ({ data }) => list(data) }); // the rooms that people make
chat.join("group"); // to be counted on the first page
enter(roomInAddress());
