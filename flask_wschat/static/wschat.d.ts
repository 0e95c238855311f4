/**
 * What wschat.js offers: types and promises, kept by hand.
 *
 *   const chat = new WSChat("/ws/vote");
 *   chat.on("tally", (message) => draw(message.counts));
 *   const reply = await chat.request("vote", { choice: "tea" });
 *
 * Where the server has a ChatListener (docs/protocol.md):
 *
 *   const lobby = chat.join("Lobby", { onMessage: show, onReset: showOnly });
 *   await lobby.say({ text: "Hello" }); // stored, once, whatever the network does
 *
 * A chat's connection that is dead, though nobody has closed it, is known and retried
 * within 10 seconds in a page that is in view, within 40 in a hidden one (browsers may
 * wake those once a minute only). On sockets of your own routes nobody asks.
 */

/** "reconnecting" tries until it succeeds; "closed" is final. */
export type State = "connecting" | "open" | "reconnecting" | "closed";

export interface StateChange {
  state: State;
  /**
   * The close code that led here, 0 if none did. 401 or 403 with "closed": the handshake
   * is refused for good, until somebody logs in and the page makes a new WSChat.
   */
  code: number;
  reason: string;
}

/** A JSON object with a `type`, as a chat sends them. */
export interface Message {
  type: string;
  [field: string]: unknown;
}

/** The answer to a request; its result stands beside `ok`. */
export interface Reply extends Message {
  ref: number;
  ok: true;
}

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

/** Why a request failed. */
export class RequestError extends Error {
  constructor(code: string, message: string, retryAfter?: number);
  /**
   * The server's own code, or "timeout", "full" (nothing was sent), "disconnected"
   * (after it was sent: it may have arrived or not).
   */
  code: string;
  /** Seconds that the server asks to wait, 0 if it does not. */
  retryAfter: number;
}

/** The first message of a ChatListener, of the newest connection. */
export interface Hello extends Message {
  protocol: number;
  id: string;
  user: string | null;
  /** Seconds between the server's pings. */
  ping: number;
  limits: {
    message: number;
    data: number;
    depth: number;
    name: number;
    mid: number;
    page: number;
    rooms: number;
    new_rooms: { per_second: number; burst: number } | null;
    rate: { per_second: number; burst: number } | null;
  };
}

/** What messages in rooms and to users have in common. */
export interface Said extends Message {
  /** Counts 1, 2, 3 in each room; 0: it is not kept. */
  seq: number;
  /** null: the application, or somebody without a user id. */
  from: string | null;
  data: unknown;
  /** Seconds since 1970. */
  at: number;
  mid: string | null;
  /** Tells it from another one with its number. */
  tag?: string;
  /** `data` is base64. */
  binary?: true;
  /** It was taken back, before this page came to it: `data` is null. */
  deleted?: true;
}

/** A message in a room. */
export interface RoomMessage extends Said {
  type: "message";
  /** null: to everybody; those go to `on("message")` only. */
  room: string | null;
}

/** A message to one user; `seq` counts in your inbox. */
export interface DirectMessage extends Said {
  type: "direct";
  to: string;
}

/** That a message is stored, as number `seq`. */
export interface Stored extends Reply {
  seq: number;
  at: number;
}

/** A message that grows, as an answer that a model writes. */
export interface GrowingMessage {
  /** The `mid` of the message that it becomes. */
  id: string;
  from: string | null;
  /** When it began, in seconds since 1970. */
  at: number;
  /** Pieces so far. */
  n: number;
  /** All of them, one after another. */
  text: string;
}

/** What a page does with a room, or with the inbox. */
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

export interface RoomReading extends Reading<RoomMessage> {
  /**
   * Who is here, sorted; and who came and left, if that is why. Where they are too many
   * to be named, there are no names, and how many they are.
   */
  onPresence?(
    present: string[],
    change: { joined: string[]; left: string[] },
    count: number,
  ): void;
  /** The message with this number was taken back: show it no more. */
  onDeleted?(seq: number): void;
}

/** The direct messages to this user, and those this user sends. */
export interface Inbox {
  readonly name: string | null;
  /** How far it is read, undefined before the first reply. */
  readonly seq?: number;
  readonly epoch?: string;
  readonly tag?: string;
  /** What grows now, by `id`. */
  readonly streams: ReadonlyMap<string, GrowingMessage>;
  /** Have what grows end where it is, if you may; rejects with a RequestError. */
  stop(id: string): Promise<Reply>;
  /** Hear no more of it, also after a reconnect. */
  leave(): void;
}

export interface Room extends Inbox {
  readonly name: string;
  readonly present: string[];
  readonly count: number;
  say(data: unknown): Promise<Stored>;
}

/** The text `T`, unless `Map` has its own words for it. */
type Untyped<Map, T extends string> = T extends keyof Map ? never : T;

/**
 * `Events`: what the application sends, by its `type`. `Requests`: what it may be asked,
 * as `{ fields, result }`. Both are printed by `flask wschat types`; what they do not
 * name has any fields.
 */
export class WSChat<Events = {}, Requests = {}> {
  /**
   * Connects at once. `url` may be relative to the page; http becomes ws. `protocols`:
   * subprotocols to offer; a browser closes where the server chooses none of them.
   */
  constructor(url: string, options?: { protocols?: string | string[] });

  readonly state: State;

  /** What a ChatListener said first, undefined before. */
  readonly hello?: Hello;

  /**
   * Join a room and stay in it: after a reconnect, or where the server may have missed
   * something, it is read on from the last message that was shown. One reading for each
   * room; a second one takes its place.
   */
  join(room: string, reading?: RoomReading): Room;

  /** Read the direct messages likewise. */
  inbox(reading?: Reading<DirectMessage>): Inbox;

  /**
   * Say `data`, anything JSON can say, to a room, and repeat that until the server has
   * stored it: once, however often it was sent. Messages to one room are stored in the
   * order of the calls, each after the one before. All that is asked for you, joins
   * after a reconnect included, is sent as fast as the server's `limits.rate` allows.
   *
   * Rejects with a RequestError: the server's code where it refuses, "too_big", "full"
   * over 1 MiB that waits, "disconnected" when closed for good (it may be stored or not).
   */
  say(room: string, data: unknown): Promise<Stored>;

  /** Say it to one user likewise. */
  tell(to: string, data: unknown): Promise<Stored>;

  /**
   * Call `handler` for each JSON object whose `type` is this text. "*" means every
   * message: those objects, any other text as the string that was sent, JSON or not, and
   * binary as an ArrayBuffer. What one handler throws is reported and stops no other.
   * Returns a function that ends it.
   */
  on(type: "*", handler: (message: unknown) => void): () => boolean;
  on<T extends keyof Events & string>(
    type: T,
    handler: (message: Events[T]) => void,
  ): () => boolean;
  on<M extends Message, T extends string = string>(
    type: Untyped<Events, T>,
    handler: (message: M) => void,
  ): () => boolean;

  /**
   * Call `watcher` now and at each change. At "open" the joins have been sent, as many as
   * the server's limit lets through at once, and what waits has not: so what is asked
   * from it comes between. Returns a function that ends it.
   */
  onState(watcher: (change: StateChange) => void): () => boolean;

  /**
   * Send text, bytes (a Blob, an ArrayBuffer, a view of one), or anything else as JSON:
   * now, or, as it is now, once connected.
   * @throws TypeError for what JSON cannot say: undefined, a function
   * @throws RequestError "full" over 64 KiB of waiting data, "disconnected" when closed
   */
  send(data: unknown): void;

  /**
   * Send `{ ...fields, type, ref }` and resolve to the server's reply with this `ref`;
   * reject with a RequestError. `timeout` is in milliseconds from when it is sent, 10 000
   * by default; before that it waits for the connection.
   */
  request<T extends keyof Requests & string>(
    type: T,
    ...more: Requests[T] extends { fields: infer Fields }
      ? {} extends Fields
        ? [fields?: Fields, options?: { timeout?: number }]
        : [fields: Fields, options?: { timeout?: number }]
      : never
  ): Promise<
    Reply & { result: Requests[T] extends { result: infer Result } ? Result : never }
  >;
  request<R extends Reply = Reply, T extends string = string>(
    type: Untyped<Requests, T>,
    fields?: Record<string, unknown>,
    options?: { timeout?: number },
  ): Promise<R>;

  /** Close for good. */
  close(code?: number, reason?: string): void;
}
