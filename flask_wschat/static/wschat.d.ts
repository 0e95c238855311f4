/**
 * What wschat.js offers: types and promises, kept by hand. With examples: docs/client.md
 *
 *   const chat = new WSChat("/ws/chat");
 *   chat.onState(({ state }) => banner(state));
 *   const lobby = chat.join("Lobby", { onMessage: show, onReset: showOnly });
 *   await lobby.say({ text: "Hello" }); // stored, once, whatever the network does
 *
 * A chat's connection that is dead, though nobody has closed it, is known and retried
 * within 10 seconds in a page that is in view, within 40 in a hidden one (browsers may
 * wake those once a minute only). On sockets of your own routes nobody asks.
 *
 * What a handler throws, of whatever kind, is reported (`reportError`) and stops nothing
 * else. Where a function is returned, calling it ends what was begun.
 *
 * Over 450 lines, as one file is what a page and its tools fetch.
 */

export {}; // so that what is not exported below is not

// ---- What goes over the wire: docs/protocol.md ------------------------------------

/** Anything that JSON can say; objects are plain ones and arrays of it. */
export type Json = string | number | boolean | null | object;

/** A JSON object with a `type`, as a chat sends them. */
export interface Message {
  type: string;
}

export interface Rate {
  /** How many a second, over time. */
  per_second: number;
  /** How many at once. */
  burst: number;
}

/** What the server takes; what is optional is of rooms and inboxes, where it has some. */
export interface Limits {
  /** Bytes of a whole message; more ends the connection with 1009. */
  message: number;
  /** Bytes of `data`, as compact JSON in UTF-8. */
  data?: number;
  /** Arrays and objects within each other in `data`. */
  depth: number;
  /** Characters of a name. */
  name?: number;
  /** Characters of a `mid`. */
  mid?: number;
  /** Messages in one reply. */
  page?: number;
  /** Rooms of one connection. */
  rooms?: number;
  /** Rooms and inboxes that you may begin; null: any number. */
  new_rooms?: Rate | null;
  /** Requests; null: any number. */
  rate: Rate | null;
}

/** The first message of each connection. */
export interface Hello extends Message {
  type: "hello";
  protocol: 1;
  /** Of this connection. */
  id: string;
  /** Who the server takes you for; null: somebody without a user id. */
  user: string | null;
  /** Seconds between the server's pings. */
  ping: number;
  limits: Limits;
}

/** What messages in rooms and to users have in common. */
interface Said<Data> extends Message {
  /** Counts 1, 2, 3 in each room and each inbox; 0: it is not kept. */
  seq: number;
  /** A user id; null: the application, or somebody without one. */
  from: string | null;
  data: Data;
  /** When it was stored, in seconds since 1970. */
  at: number;
  /** The sender's id for it; null: the application gave it none. */
  mid: string | null;
  /** Tells it from another one with its number. */
  tag?: string;
  /** `data` is binary data in base64; only the application sends some. */
  binary?: true;
}

/** A message in a room that is there to be seen. */
export interface SaidInRoom<Data = Json> extends Said<Data> {
  type: "message";
  /** null: to everybody; those go to `chat.on("message")` only. */
  room: string | null;
  deleted?: undefined;
}

/** A message that was taken back before this page came to it. */
export interface TakenBack {
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

/** A message in a room: ask `deleted` before its `data`. */
export type RoomMessage<Data = Json> = SaidInRoom<Data> | TakenBack;

/** A message to one user; `seq` counts in your inbox. */
export interface DirectMessage<Data = Json> extends Said<Data> {
  type: "direct";
  /** The user it was told; you, or another one where you told it. */
  to: string;
}

/** A message that grows, as an answer that a model writes. */
export interface GrowingMessage {
  /** The `mid` of the message that it becomes. */
  id: string;
  /** As in messages. */
  from: string | null;
  /** When it began, in seconds since 1970. */
  at: number;
  /** Pieces so far. */
  n: number;
  /** All of them, one after another. */
  text: string;
}

/** Who came into a room, and who left it: user ids. */
export interface PresenceChange {
  joined: string[];
  left: string[];
}

/** How a poll stands. */
export interface Votes {
  /** Votes by option, every option; their order means nothing. */
  counts: Record<string, number>;
  /** The sum of them. */
  total: number;
  /** No more votes are taken. */
  closed: boolean;
  /** Grows with each change: of two the higher is the newer. */
  version: number;
}

/** How a poll stands, and what you voted for; null: you have not. */
export interface PollState extends Votes {
  mine: string | null;
}

/** And what can be voted for, in order. */
export interface PollReply extends PollState {
  options: string[];
}

/** A poll has changed. `chat.poll(name).on(…)` has them in order, and misses none. */
export interface Tally extends Votes {
  type: "tally";
  poll: string;
}

/** `null` for a room is the inbox. What a `Room` does with these, it does by itself. */
interface Placed<Type extends string, Room = string | null> {
  type: Type;
  room: Room;
}

/** The answer to a request that was done; its result stands beside `ok`. */
export interface Reply extends Message {
  type: "reply";
  ref: number;
  ok: true;
}

/** The answer to one that was not; `request` rejects with it, as a `RequestError`. */
export interface Refusal extends Message {
  type: "reply";
  /** null: the request had none that could be read. */
  ref: number | null;
  ok: false;
  error: {
    code: ServerCode;
    /** For who writes the page, not for users; English. */
    message: string;
    /** Seconds to wait. */
    retry_after?: number;
  };
}

/** What a chat sends, by its `type`: `chat.on("tally", (tally) => tally.counts)`. */
export interface ChatEvents {
  hello: Hello;
  message: RoomMessage;
  direct: DirectMessage;
  /** A message was taken back. */
  deleted: Placed<"deleted", string> & { seq: number };
  /** A message begins to grow, or this is all of it so far. */
  stream: Placed<"stream"> & GrowingMessage;
  /** A piece more of it. */
  append: Placed<"append"> & { id: string; n: number; text: string };
  /** It will not become a message. */
  discard: Placed<"discard"> & { id: string; reason: string };
  /** Who came and left; or, where they are too many to be named, how many there are. */
  presence: Placed<"presence", string> &
    (
      | (PresenceChange & { count?: undefined; present?: undefined })
      | { joined?: undefined; left?: undefined; count: number; present?: string[] }
    );
  tally: Tally;
  /** Messages may be missing; `spread` is in seconds. */
  gap: Placed<"gap"> & { spread?: number };
  reply: Reply | Refusal;
}

/** Where to read on. */
interface Place {
  after?: number;
  epoch?: string;
  tag?: string;
}

interface Page {
  /** Whose numbers these are. */
  epoch: string;
  /** The newest number given out, 0 if none was. */
  seq: number;
}

interface Joined<M> extends Page {
  tag: string;
  recovered: boolean;
  more: boolean;
  messages: M[];
  streams: ChatEvents["stream"][];
}

/** A part of a room's history, in ascending order. */
export interface History<Data = Json> extends Page {
  messages: RoomMessage<Data>[];
}

/** A part of those who are in a room, sorted by Unicode's code points. */
export interface People {
  present: string[];
  /** How many are there in all. */
  count: number;
  /** There are more after these. */
  more: boolean;
}

/** That a message is stored, as number `seq`, at `at` seconds since 1970. */
export interface Stored extends Reply {
  seq: number;
  at: number;
}

/**
 * What a chat may be asked, by its type: `chat.request("poll", { poll: "Tea" })`. `fields`
 * go with the request; those of `reply` stand beside `ok`.
 */
export interface ChatRequests {
  join: {
    fields: Place & { room: string };
    reply: Joined<RoomMessage> & { count?: number; present?: string[] };
  };
  inbox: { fields: Place; reply: Joined<DirectMessage> };
  leave: { fields: { room: string }; reply: {} };
  say: {
    fields: { room: string; data: Json; mid: string; prev?: string };
    reply: { seq: number; at: number };
  };
  tell: {
    fields: { to: string; data: Json; mid: string; prev?: string };
    reply: { seq: number; at: number };
  };
  history: { fields: { room: string; before?: number; limit?: number }; reply: History };
  who: { fields: { room: string; after?: string; limit?: number }; reply: People };
  vote: { fields: { poll: string; choice: string }; reply: Votes };
  poll: { fields: { poll: string }; reply: PollReply };
  stream: {
    fields: { room?: string; id: string };
    reply: GrowingMessage & { room: string | null };
  };
  stop: { fields: { room?: string; id: string }; reply: {} };
  ping: { fields: {}; reply: {} };
}

// ---- Errors -----------------------------------------------------------------------

/** What the server answers: docs/protocol.md, "Errors", says what to do about each. */
export type ServerCode =
  | "bad_json"
  | "bad_request"
  | "forbidden"
  | "internal"
  | "not_joined"
  | "out_of_order"
  | "poll_closed"
  | "rate_limited"
  | "too_big"
  | "too_many"
  | "unauthorized"
  | "unavailable"
  | "unknown_choice"
  | "unknown_poll"
  | "unknown_stream"
  | "unknown_type";

/**
 * What happens on this side.
 * - "timeout": no answer in time; it may be done or not.
 * - "disconnected": the connection was lost after it was sent, which may be done or not;
 *   or it is closed for good.
 * - "full": too much is waiting; nothing was sent.
 * - "too_big": over `hello.limits.message`; nothing was sent.
 * - "expired": kept in the outbox for longer than the server knows a `mid`: a repeat might
 *   be stored twice. To `onRefused` only.
 */
export type ClientCode = "timeout" | "disconnected" | "full" | "too_big" | "expired";

/** Open, for a later server may have more of them. */
export type ErrorCode = ServerCode | ClientCode | (string & {});

/** Why a request failed. */
export class RequestError extends Error {
  /** Without words of the server its message is the code. */
  constructor(code: ErrorCode, message?: string, retryAfter?: number);
  readonly code: ErrorCode;
  /** Seconds that the server asks to wait, 0 if it does not. */
  readonly retryAfter: number;
}

// ---- The connection ---------------------------------------------------------------

/** "reconnecting" tries until it succeeds; "closed" is final, until `connect()`. */
export type State = "connecting" | "open" | "reconnecting" | "closed";

export interface StateChange {
  state: State;
  /**
   * The close code that led here, 0 if none did. 401 or 403 with "closed": the handshake
   * is refused, until somebody logs in and calls `connect()`.
   */
  code: number;
  reason: string;
  /** Attempts that have failed since it was open; 0 when it is. */
  attempt: number;
  /**
   * When the next attempt begins, in milliseconds since 1970 as `Date.now()` has them; 0
   * if none is planned: open, closed, one is under way, or offline until the network is
   * there.
   */
  retryAt: number;
}

/** A message that is not known to be stored; `at` in milliseconds since 1970. */
export type Waiting = {
  readonly mid: string;
  readonly data: Json;
  readonly at: number;
} & (
  | { readonly room: string; readonly to?: undefined }
  | { readonly to: string; readonly room?: undefined }
);

/** Where messages wait over a reload: what `localStorage` has of this. */
export interface Outbox {
  readonly length: number;
  key(index: number): string | null;
  getItem(key: string): string | null;
  setItem(key: string, value: string): void;
  removeItem(key: string): void;
}

/** What is needed of a class like the browser's: for Node 20 that of the package `ws`. */
export type SocketClass = new (
  url: string,
  protocols?: string | string[],
) => { binaryType: string; send(data: any): void; close(code?: number, reason?: string): void };

export interface Options {
  /** Subprotocols to offer; a browser closes where the server chooses none of them. */
  protocols?: string | string[];
  /**
   * Asked before each attempt: a ticket of your server (`chat.ticket(user)`), sent as
   * `?ticket=…`. null: there is none to be had, which ends it as "closed", 401. Where it
   * throws, it is tried again later, as after a bad network. A ticket that the server
   * refuses is replaced by a fresh one once, then that is "closed", 401, as well.
   */
  ticket?: () => string | null | Promise<string | null>;
  /**
   * Keep what is not acknowledged over a reload, and send it then; for each user apart, so
   * from the first `hello` on, and not for people without a user id. A store that throws
   * (full, forbidden) is done without.
   */
  outbox?: "localStorage" | Outbox;
  /** One that an earlier page left in the outbox is refused, or has expired. */
  onRefused?: (message: Waiting, error: RequestError) => void;
  /** Instead of `globalThis.WebSocket`. */
  WebSocket?: SocketClass;
}

/** Of what is asked once. */
export interface RequestOptions {
  /** Milliseconds, from when it is sent; 10 000 by default. */
  timeout?: number;
  /** Rejects with `signal.reason`; what was not sent by then never is. */
  signal?: AbortSignal;
}

/** Of what is asked, also after a loss, until there is an answer. */
export interface AskOptions {
  /** Milliseconds in all, none by default. */
  timeout?: number;
  /** Rejects with `signal.reason`, and asks no more. */
  signal?: AbortSignal;
}

/** What was sent by the time it is given up may be stored. */
export interface SayOptions extends AskOptions {
  /** Your own id for it, new for each message; unique among all of your user's. */
  mid?: string;
}

/** A message on its way; `mid` pairs it with the message that the room is sent. */
export type Saying = Promise<Stored> & { readonly mid: string };

// ---- Rooms, the inbox, polls ------------------------------------------------------

/** What a page does with a room, or with the inbox: called as methods of what is given. */
export interface Reading<M> {
  /** Where to go on, as an earlier page left it; `tag` if there was one. */
  seq?: number;
  epoch?: string;
  tag?: string;
  /** A message: each once, in the order of the numbers. */
  onMessage?(message: M): void;
  /**
   * Show these instead of what you show, if anything: the newest ones, at the first
   * join and where what came between cannot be had any more. Without this handler
   * each of them goes to `onMessage`.
   */
  onReset?(messages: M[]): void;
  /**
   * A message grows: `piece` is what has come; with the first call for an `id`, and
   * where pieces were missed, all of `stream.text`. In the end `onMessage` gets a message
   * with the `mid` `stream.id`, which takes its place, or `onDiscard` is called.
   */
  onStream?(stream: GrowingMessage, piece: string): void;
  /** What grew will not become a message; `reason` is "" where it is not known. */
  onDiscard?(id: string, reason: string): void;
  /** It cannot be joined, and is not tried again: `error.code` says why. */
  onError?(error: RequestError): void;
}

export interface RoomReading<Data = Json> extends Reading<RoomMessage<Data>> {
  /**
   * Who is here, sorted; and who came and left, if that is why. Where they are too many
   * to be named, there are no names, and how many they are.
   */
  onPresence?(present: string[], change: PresenceChange, count: number): void;
  /** The message with this number was taken back: show it no more. */
  onDeleted?(seq: number): void;
}

/** What a room and the inbox have in common. */
interface Feed {
  /** How far it is read, undefined before the first reply. */
  readonly seq?: number;
  readonly epoch?: string;
  readonly tag?: string;
  /** What grows now, by `id`. */
  readonly streams: ReadonlyMap<string, GrowingMessage>;
  /** Have what grows end where it is, if you may; rejects with a RequestError. */
  stop(id: string, options?: RequestOptions): Promise<Reply>;
  /** Hear no more of it, also after a reconnect. Others who joined it hear on. */
  leave(): void;
}

/** The direct messages to this user, and those this user sends. */
export interface Inbox extends Feed {
  readonly name: null;
}

export interface Room<Data = Json, Events = {}, Requests = {}> extends Feed {
  readonly name: string;
  /** Who is here, sorted; empty where they are too many to be named. */
  readonly present: string[];
  /** How many are here. */
  readonly count: number;
  /** As `chat.say`. */
  say(data: Data, options?: SayOptions): Saying;
  /**
   * What was said before number `before`, or the newest: `limit` messages, or as many as
   * the server gives. Another `epoch` than the room's: the numbers have begun anew.
   */
  history(
    options?: AskOptions & { before?: number; limit?: number },
  ): Promise<Reply & History<Data>>;
  /** Who is here, page after page: `after` is the last name of the page before. */
  who(options?: AskOptions & { after?: string; limit?: number }): Promise<Reply & People>;
  /** `chat.request(type, { room, ...fields })`. */
  emit<T extends Name<Requests & ChatRequests>>(
    type: T,
    ...more: Asked<Requests, T, "room">
  ): Promise<Answer<Requests, T>>;
  /** As `chat.on`, for events of this room only. */
  on<T extends Name<Events & ChatEvents>>(
    type: T,
    handler: (event: Sent<Events, T>) => void,
  ): () => void;
}

export interface Poll {
  /** Vote, or change your vote; one that a newer overtakes resolves as that does. */
  vote(choice: string, options?: AskOptions): Promise<Reply & Votes>;
  /**
   * Call `handler` now, as soon as it is known, at each change and after each reconnect;
   * never with an older state after a newer one.
   */
  on(handler: (state: PollState) => void): () => void;
  /** Ask how it stands, and what can be voted for. */
  get(options?: AskOptions): Promise<Reply & PollReply>;
}

// ---- Your own events and requests -------------------------------------------------

/** A name of `Map`, or any other. */
type Name<Map> = (keyof Map & string) | (string & {});

/** `Own`, and of the chat's what it does not name itself. */
type Known<Own, Chats> = Own & Omit<Chats, keyof Own>;

/** What comes with the type `T`; without words for it, anything. */
type Sent<Events, T> = T extends keyof Known<Events, ChatEvents>
  ? Known<Events, ChatEvents>[T]
  : any;

/** The arguments after the type of a request. */
type Asked<Requests, T, Given extends string = never> =
  T extends keyof Known<Requests, ChatRequests>
    ? Known<Requests, ChatRequests>[T] extends { fields: infer Fields }
      ? {} extends Omit<Fields, Given>
        ? [fields?: Omit<Fields, Given>, options?: RequestOptions]
        : [fields: Omit<Fields, Given>, options?: RequestOptions]
      : [fields?: {}, options?: RequestOptions]
    : [fields?: Record<string, unknown>, options?: RequestOptions];

/** The reply to it. */
type Answer<Requests, T> = Reply &
  (T extends keyof Known<Requests, ChatRequests>
    ? Known<Requests, ChatRequests>[T] extends { reply: infer Fields }
      ? Fields
      : Known<Requests, ChatRequests>[T] extends { result: infer Result }
        ? { result: Result }
        : {}
    : { [field: string]: unknown });

/**
 * `Events`: what the application sends, by its `type`. `Requests`: what it may be asked,
 * as `{ fields, result }`, or `{ fields, reply }` where the fields of the reply stand beside
 * `ok`. Both are printed by `flask wschat types`. Each comes before the chat's own of
 * the same name; what neither names has any fields.
 */
export class WSChat<Events = {}, Requests = {}> {
  /**
   * Connects at once. `url` may be relative to the page, if there is one; http becomes ws.
   * As a function it is asked before each attempt; where it throws, it is tried again.
   * @throws TypeError for a relative URL without a page (Node, some workers)
   */
  constructor(
    url: string | URL | (() => string | URL | Promise<string | URL>),
    options?: Options,
  );

  readonly state: State;

  /**
   * What the server said first, undefined before; of the newest connection. A listener of
   * your own that says hello may leave fields out.
   */
  readonly hello?: Hello;

  /** What was said and told, and is not known to be stored; the oldest first. */
  readonly waiting: readonly Waiting[];

  /**
   * Call `watcher` now, at each change, and where an attempt to reconnect begins or is
   * planned anew. At "open" the joins have been sent, and what was said meanwhile, as many
   * as the server's limit lets through at once; what `send` and `request` were given has
   * not: so what is asked from the watcher comes before that.
   */
  onState(watcher: (change: StateChange) => void): () => void;

  /**
   * Try now: a wait before the next attempt ends, and the waits begin anew; an open
   * connection is asked whether it is one; a closed one is as with `connect()`.
   */
  reconnect(): void;

  /** After a final "closed": open again; rooms read on where they were. */
  connect(): void;

  /**
   * Close for good. What waits is refused with "disconnected"; what is in the outbox stays
   * there, and is said by the next page or after `connect()`.
   */
  close(code?: number, reason?: string): void;

  /**
   * Call `handler` for each JSON object whose `type` is this text. "*" means every
   * message: those objects, any other text as the string that was sent, JSON or not, and
   * binary as an ArrayBuffer.
   */
  on(type: "*", handler: (message: unknown) => void): () => void;
  on<T extends Name<Events & ChatEvents>>(
    type: T,
    handler: (event: Sent<Events, T>) => void,
  ): () => void;

  /**
   * Send text and bytes (a Blob, an ArrayBuffer, a view of one) as they are, plain
   * objects, arrays, numbers, booleans and null as JSON: now, or, as it is now, once
   * connected.
   * @throws TypeError for anything else: undefined, a Map, FormData, a function …
   * @throws RequestError "full" over 64 KiB of waiting data, "disconnected" when closed
   */
  send(data: Json): void;

  /**
   * Send `{ ...fields, type, ref }` and resolve to the server's reply with this `ref`.
   * It waits for the connection, and is sent once: rejects with a RequestError.
   */
  request<T extends Name<Requests & ChatRequests>>(
    type: T,
    ...more: Asked<Requests, T>
  ): Promise<Answer<Requests, T>>;

  /**
   * Say `data` to a room that was joined, and repeat that until the server has stored it:
   * once, however often it was sent. Messages to one place are stored in the order of
   * the calls, without waiting for each other's answers. All that is asked for you, joins
   * after a reconnect included, is sent as fast as the server's `limits.rate` allows.
   *
   * Rejects with a RequestError: the server's code where it refuses, "too_big", "full"
   * over 1 MiB that waits, "timeout" if you set one, "disconnected" when closed for good
   * (it may be stored or not). With a TypeError for what JSON cannot say.
   */
  say(room: string, data: Json, options?: SayOptions): Saying;

  /** Say it to one user likewise. */
  tell(to: string, data: Json, options?: SayOptions): Saying;

  /**
   * Join a room and stay in it: after a reconnect, or where the server may have missed
   * something, it is read on from the last message that was shown. Who joins it once more
   * has a reading and a position of its own; the server is told when the last one leaves.
   * `Data` is what people say there.
   */
  join<Data = Json>(
    room: string,
    reading?: RoomReading<Data>,
  ): Room<Data, Events, Requests>;

  /** Read the direct messages likewise. */
  inbox<Data = Json>(reading?: Reading<DirectMessage<Data>>): Inbox;

  /** A poll of the application; that of a room is for who has joined it. */
  poll(name: string): Poll;
}

// ---- Pure functions ---------------------------------------------------------------

/** Who is there after a change: sorted, each once, whatever was known before. */
export function applyPresence(
  present: readonly string[],
  change: { readonly joined: readonly string[]; readonly left: readonly string[] },
): string[];

/** Who came and who left between two lists. */
export function diffPresence(
  before: readonly string[],
  after: readonly string[],
): PresenceChange;

/**
 * Milliseconds to wait before retry number `attempt`, counted from 0: anywhere from 0
 * to 500, then to 1000, 2000 and so on up to 10 000 ("full jitter").
 */
export function backoff(attempt: number, random?: () => number): number;

/**
 * Whether a connection closed with this code is opened again: yes, except after 1000,
 * 1008 and 4000-4499. After 1000 a chat's connection is opened again as well, unless it
 * was `close()`: proxies close so, while a view says so that it is through. A page never
 * sees the HTTP status of a refused handshake, only 1006: then the same URL is asked for
 * by an ordinary GET, once, and 401 or 403 ends it. An origin that the server does not
 * take is not found so, as browsers send none with that GET: see the server's log.
 */
export function shouldReconnect(code: number): boolean;
