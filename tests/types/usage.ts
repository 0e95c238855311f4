/**
 * Each call of wschat.js in its types. Nothing here is run: `tsc --strict` must have
 * nothing against it, and something against each line after `@ts-expect-error`.
 */

import {
  RequestError,
  WSChat,
  applyPresence,
  backoff,
  diffPresence,
  shouldReconnect,
} from "flask-wschat";
import type {
  AskOptions,
  ChatEvents,
  ClientCode,
  DirectMessage,
  ErrorCode,
  GrowingMessage,
  Hello,
  Inbox,
  Json,
  Limits,
  Outbox,
  Poll,
  PollState,
  Reading,
  Refusal,
  Reply,
  RequestOptions,
  Room,
  RoomMessage,
  RoomReading,
  SayOptions,
  ServerCode,
  StateChange,
  Stored,
  TakenBack,
  Tally,
  Votes,
  Waiting,
} from "flask-wschat";

/** Not `any` either, which is assignable to all and from all. */
type Same<A, B> =
  (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;

interface Line {
  text: string;
}

// ---- Opening ----

const chat = new WSChat("/chat");
new WSChat(new URL("wss://example.org/chat"), { protocols: "wschat.v1.json" });
new WSChat(() => "/chat", { protocols: ["a", "b"], WebSocket });
new WSChat(async () => new URL("wss://example.org/chat"), {
  ticket: async () => (await fetch("/ticket")).text(),
  outbox: "localStorage",
  onRefused: (message, error) => message.mid + error.code,
});
new WSChat("/chat", { ticket: () => null, outbox: sessionStorage });
const kept = new Map<string, string>();
const outbox: Outbox = {
  get length() {
    return kept.size;
  },
  key: (index) => [...kept.keys()][index] ?? null,
  getItem: (key) => kept.get(key) ?? null,
  setItem: (key, value) => void kept.set(key, value),
  removeItem: (key) => void kept.delete(key),
};
new WSChat("/chat", { outbox });
// @ts-expect-error
new WSChat();
// @ts-expect-error
new WSChat(80);
// @ts-expect-error
new WSChat("/chat", { tickets: () => "t" });
// @ts-expect-error
new WSChat("/chat", { ticket: () => 1 });
// @ts-expect-error
new WSChat("/chat", { outbox: "sessionStorage" });
// @ts-expect-error
new WSChat("/chat", { outbox: new Map() });
// @ts-expect-error
new WSChat("/chat", { WebSocket: class {} });

// ---- Its state ----

const stopWatching = chat.onState(({ state, code, reason, attempt, retryAt }) => {
  const seconds = Math.ceil((retryAt - Date.now()) / 1000);
  if (state === "reconnecting") console.log(seconds, attempt, code, reason);
  // @ts-expect-error
  if (state === "disconnected") console.log();
});
stopWatching();
true satisfies Same<typeof stopWatching, () => void>;
true satisfies Same<StateChange["state"], typeof chat.state>;
chat.reconnect();
chat.connect();
chat.close();
chat.close(4000, "bye");
// @ts-expect-error
chat.state = "open";
// @ts-expect-error
chat.hello.user;
true satisfies Same<NonNullable<typeof chat.hello>["user"], string | null>;
chat.hello?.limits.rate?.per_second.toFixed();
true satisfies Same<Limits["data"], number | undefined>;
true satisfies Same<Limits["message"], number>;

const oldest: Waiting | undefined = chat.waiting[0];
if (oldest) {
  oldest.mid.length + oldest.at.toFixed();
  const where: string = oldest.room === undefined ? oldest.to : oldest.room;
  where.length;
}
// @ts-expect-error
chat.waiting.push(oldest);

// ---- Events ----

chat.on("tally", (tally) => {
  true satisfies Same<typeof tally, Tally>;
  tally.counts["Oat"]?.toFixed();
  // @ts-expect-error
  tally.votes;
});
chat.on("direct", (message) => {
  true satisfies Same<typeof message, DirectMessage>;
  message.to.length + message.seq.toFixed() + message.at.toFixed();
  // @ts-expect-error
  message.data.text;
  // @ts-expect-error
  message.room;
});
chat.on("message", (message) => {
  true satisfies Same<typeof message, RoomMessage>;
  if (message.deleted) true satisfies Same<typeof message, TakenBack>;
  else message.binary satisfies true | undefined;
});
chat.on("presence", (event) => {
  if (event.joined) event.left.length;
  else event.count.toFixed();
  // @ts-expect-error
  event.left.length;
});
chat.on("stream", ({ id, n, text, room }) => id + n.toFixed() + text + room?.length);
chat.on("append", ({ id, n, text, room }) => id + n.toFixed() + text + room?.length);
chat.on("discard", ({ id, reason }) => id + reason);
chat.on("deleted", ({ room, seq }) => room + seq.toFixed());
chat.on("gap", ({ room, spread }) => [room?.length, spread?.toFixed()]);
chat.on("hello", (hello) => hello.limits.depth.toFixed());
chat.on("reply", (reply) => (reply.ok ? reply.ref.toFixed() : reply.error.code));
chat.on("*", (anything) => {
  // @ts-expect-error
  anything.type;
});
chat.on("moved", (event: { type: "moved"; x: number }) => event.x.toFixed());
chat.on("moved", ({ x }) => x);
const off: () => void = chat.on("moved", () => undefined);
off();
// @ts-expect-error
chat.on("tally", (tally: { counts: string }) => tally);
// @ts-expect-error
chat.on("tally");
for (const type of ["tally", "presence"] as const) {
  chat.on(type, (event) => event satisfies ChatEvents["tally" | "presence"]);
}

// ---- Raw ----

chat.send("text");
chat.send(new Uint8Array(2));
chat.send(new ArrayBuffer(2));
chat.send(new Blob([]));
chat.send({ type: "own", lines: [{ text: "a" } satisfies Line] });
chat.send([0.1, null, true]);
// @ts-expect-error
chat.send();
// @ts-expect-error
chat.send(undefined);
// @ts-expect-error
chat.send(1n);
// @ts-expect-error
chat.send(Symbol());

// ---- Requests ----

const stands = await chat.request("poll", { poll: "Biscuits" });
true satisfies Same<typeof stands.mine, string | null>;
true satisfies Same<typeof stands.counts, Record<string, number>>;
true satisfies Same<typeof stands.ref, number>;
(await chat.request("vote", { poll: "Biscuits", choice: "Oat" })).total.toFixed();
await chat.request("ping");
await chat.request("ping", {}, { timeout: 4000, signal: AbortSignal.timeout(3000) });
const page = await chat.request("history", { room: "Lobby", before: 9 });
page.messages.map(({ seq, at }) => seq + at);
(await chat.request("join", { room: "Lobby" })).streams.map(({ text }) => text);
(await chat.request("inbox")).messages.map(({ to }) => to);
(await chat.request("own", { x: 1 })).whatever;
await chat.request("own");
// @ts-expect-error
await chat.request("vote", { poll: "Biscuits", choise: "Oat" });
// @ts-expect-error
await chat.request("vote", { poll: "Biscuits" });
// @ts-expect-error
await chat.request("vote");
// @ts-expect-error
stands.mime;
// @ts-expect-error
await chat.request("own", 1);
// @ts-expect-error
await chat.request("own", {}, { timeout: "1s" });
// @ts-expect-error
(await chat.request("own", { x: 1 })).whatever.length;

// ---- Errors ----

try {
  await chat.request("vote", { poll: "Biscuits", choice: "Oat" }, { timeout: 500 });
} catch (error) {
  if (!(error instanceof RequestError)) throw error;
  true satisfies Same<typeof error.code, ErrorCode>;
  switch (error.code) {
    case "poll_closed":
    case "timeout":
      break;
    default:
      error.message.length + error.retryAfter.toFixed() + error.code.length;
  }
  // @ts-expect-error
  error.code = 1;
}
"forbidden" satisfies ServerCode;
"disconnected" satisfies ClientCode;
"of_a_later_server" satisfies ErrorCode;
// @ts-expect-error
"of_a_later_server" satisfies ServerCode;
new RequestError("timeout", "too late", 2).retryAfter.toFixed();

// ---- Saying ----

const saying = chat.say("Lobby", { text: "Hello" }, { mid: "a-1" });
true satisfies Same<typeof saying.mid, string>;
const stored = await saying;
true satisfies Same<typeof stored, Stored>;
stored.seq.toFixed() + stored.at.toFixed();
(await chat.tell("ben", "psst", { timeout: 60_000 })).seq.toFixed();
chat.say("Lobby", 1, { signal: new AbortController().signal }).mid;
// @ts-expect-error
chat.say("Lobby");
// @ts-expect-error
chat.say({ text: "Hello" });
// @ts-expect-error
chat.say("Lobby", undefined);
// @ts-expect-error
saying.mid = "b-1";
// @ts-expect-error
stored.mid;

// ---- Rooms ----

const shown: RoomMessage<Line>[] = [];
const reading: RoomReading<Line> = {
  seq: 7,
  epoch: "5c1b",
  tag: "k3Qx0z",
  onMessage: (message) => shown.push(message),
  onReset: (messages) => shown.splice(0, Infinity, ...messages),
  onDeleted: (seq) => seq.toFixed(),
  onPresence: (present, { joined, left }, count) => [...present, ...joined, ...left, count],
  onStream: (stream, piece) => stream.text.endsWith(piece),
  onDiscard: (id, reason) => id + reason,
  onError: (error) => error.code,
};
const lobby = chat.join("Lobby", reading);
true satisfies Same<typeof lobby, Room<Line>>;
true satisfies Same<typeof lobby.name, string>;
true satisfies Same<typeof lobby.seq, number | undefined>;
await lobby.say({ text: "Hello" });
lobby.present.join(", ") + lobby.count.toFixed();
true satisfies Same<ReturnType<typeof lobby.streams.get>, GrowingMessage | undefined>;
await lobby.stop("m-1", { timeout: 1000 });
const older = await lobby.history({ before: shown[0]?.seq, limit: 20 });
true satisfies Same<typeof older.messages, RoomMessage<Line>[]>;
const people = await lobby.who({ after: "ann", limit: 100, signal: AbortSignal.abort() });
people.more && people.present.at(-1)?.length;
await lobby.emit("wave", { hand: "left" });
await lobby.emit("wave");
await lobby.emit("history", { limit: 1 });
lobby.on("presence", ({ room }) => room.length)();
lobby.leave();
chat.join<Line>("Lobby", {
  onMessage(message) {
    if (message.deleted) return message.seq;
    return message.data.text;
  },
});
chat.join("Lobby").say([1, "anything that JSON can say"]);
// @ts-expect-error
chat.join("Lobby").say(undefined);
// @ts-expect-error
chat.join<Line>("Lobby", { onMessage: (message) => message.data.text });
// @ts-expect-error
chat.join("Lobby", { onMesage: () => undefined });
// @ts-expect-error
lobby.say("Hello");
// @ts-expect-error
lobby.emit("history", { limit: "1" });
// @ts-expect-error
lobby.history(20);
// @ts-expect-error
lobby.present.push("me").toFixed(lobby.present = []);

const inbox = chat.inbox<Line>({
  onMessage: ({ from, to, data }) => `${from} → ${to}: ${data.text}`,
});
true satisfies Same<typeof inbox, Inbox>;
inbox.leave();
// @ts-expect-error
inbox.say("to whom?");
// @ts-expect-error
chat.inbox({ onPresence: () => undefined });

// ---- Polls ----

const poll: Poll = chat.poll("Biscuits");
const voted: Votes = await poll.vote("Oat", { timeout: 5000 });
voted.counts["Oat"]?.toFixed();
poll.on((state) => {
  true satisfies Same<typeof state, PollState>;
  if (!state.closed) state.version + state.total + (state.mine?.length ?? 0);
})();
(await poll.get({ timeout: 5000 })).mine;
// @ts-expect-error
poll.vote();

// ---- Pure functions ----

true satisfies Same<ReturnType<typeof applyPresence>, string[]>;
applyPresence(["ann"] as const, { joined: ["ben"], left: [] }).join();
diffPresence(["ann"], people.present).joined.join();
backoff(3, () => 0.5).toFixed();
true satisfies Same<ReturnType<typeof shouldReconnect>, boolean>;

// ---- What is the application's ----

interface BoardEvents {
  moved: { type: "moved"; room: string | null; from: string | null; x: number };
  tally: { type: "tally"; mine: true };
}
interface BoardRequests {
  move: { fields: { room: string; x: number }; result: undefined };
  guess: { fields: { word: string; level?: "easy" | "hard" }; result: { right: boolean } };
  raw: { fields: {}; reply: { answer: number } };
  vote: { fields: { choice: string }; result: null };
}
const board = new WSChat<BoardEvents, BoardRequests>("/board");
board.on("moved", ({ x, from }) => x.toFixed() + from?.length);
board.on("tally", ({ mine }) => mine satisfies true); // before the chat's own
board.on("direct", ({ to }) => to.length);
(await board.request("guess", { word: "tea", level: "hard" })).result.right;
(await board.request("raw")).answer.toFixed();
true satisfies Same<Awaited<ReturnType<typeof voteOnBoard>>["result"], null>;
function voteOnBoard() {
  return board.request("vote", { choice: "tea" });
}
(await board.request("poll", { poll: "Biscuits" })).mine?.length;
const room = board.join<Line>("a");
true satisfies Same<typeof room, Room<Line, BoardEvents, BoardRequests>>;
await room.emit("move", { x: 1 });
room.on("moved", ({ x }) => x.toFixed());
room.on("unnamed", ({ x }) => x);
// @ts-expect-error
await room.emit("move", { x: "1" });
// @ts-expect-error
await room.emit("move");
// @ts-expect-error
await board.request("guess", { word: "tea", level: "harder" });
// @ts-expect-error
await board.request("vote", { poll: "Biscuits", choice: "Oat" });
// @ts-expect-error
board.on("moved", ({ y }) => y);
// @ts-expect-error
board.on("tally", ({ counts }) => counts);
// @ts-expect-error
(await board.request("raw")).result;

/** Code that is for any client. */
function banner<Events, Requests>(any: WSChat<Events, Requests>) {
  any.onState(({ state }) => state.length);
  any.join<Line>("Lobby").leave();
}
banner(chat);
banner(board);

/** And what others make of a room, such as a hook. */
class Talk<Data> {
  constructor(readonly room: Room<Data>) {}

  say(data: Data) {
    return this.room.say(data).mid;
  }
}
class Log implements RoomReading<Line> {
  readonly lines: string[] = [];

  onMessage(message: RoomMessage<Line>) {
    this.lines.push(message.deleted ? "" : message.data.text);
  }
}
chat.join<Line>("Lobby", new Log());
new Talk(lobby).say({ text: "Hello" });
new Talk(chat.join("Lobby")).say("Hello");
// @ts-expect-error
new Talk(lobby).say("Hello");

// ---- Whole shapes, as no use of them tells what is optional, readonly or `any` ----

true satisfies Same<
  StateChange,
  {
    state: "connecting" | "open" | "reconnecting" | "closed";
    code: number;
    reason: string;
    attempt: number;
    retryAt: number;
  }
>;
type Unstored = { readonly mid: string; readonly data: Json; readonly at: number };
true satisfies Same<
  Waiting,
  Unstored &
    (
      | { readonly room: string; readonly to?: undefined }
      | { readonly to: string; readonly room?: undefined }
    )
>;
true satisfies Same<
  TakenBack,
  {
    type: "message";
    room: string | null;
    seq: number;
    from: null;
    data: null;
    at: number;
    mid: null;
    tag?: string;
    deleted: true;
  }
>;
true satisfies Same<
  DirectMessage,
  {
    type: "direct";
    seq: number;
    from: string | null;
    to: string;
    data: Json;
    at: number;
    mid: string | null;
    tag?: string;
    binary?: true;
  }
>;
true satisfies Same<RequestOptions, { timeout?: number; signal?: AbortSignal }>;
true satisfies Same<AskOptions, RequestOptions>;
true satisfies Same<SayOptions, { mid?: string; timeout?: number; signal?: AbortSignal }>;
true satisfies Same<
  Pick<RequestError, "code" | "message" | "retryAfter">,
  { readonly code: ErrorCode; message: string; readonly retryAfter: number }
>;
true satisfies Same<
  Pick<Inbox, "name" | "seq" | "epoch" | "tag" | "streams">,
  {
    readonly name: null;
    readonly seq?: number;
    readonly epoch?: string;
    readonly tag?: string;
    readonly streams: ReadonlyMap<string, GrowingMessage>;
  }
>;
true satisfies Same<
  Pick<Room, "name" | "present" | "count" | "seq">,
  {
    readonly name: string;
    readonly present: string[];
    readonly count: number;
    readonly seq?: number;
  }
>;
true satisfies Same<
  Pick<typeof chat, "hello" | "waiting" | "state">,
  {
    readonly hello?: Hello;
    readonly waiting: readonly Waiting[];
    readonly state: StateChange["state"];
  }
>;
true satisfies Same<
  Omit<Reading<number>, `on${string}`>,
  { seq?: number; epoch?: string; tag?: string }
>;
true satisfies Same<ChatEvents["reply"], Reply | Refusal>;
true satisfies Same<Outbox["length"], number>;
// @ts-expect-error
outbox.length = 0;

/** What needs no options takes none. */
async function bare() {
  await lobby.stop("m-1");
  await lobby.who();
  await lobby.history();
  await inbox.stop("m-1");
  await poll.vote("Oat");
  await poll.get();
  await chat.say("Lobby", "Hello");
  await chat.tell("ben", "Hello");
  chat.inbox();
  chat.join("Lobby");
  new RequestError("timeout", "too late");
}
bare();
