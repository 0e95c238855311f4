/**
 * What wschat.js offers: types and promises, kept by hand.
 *
 *   const chat = new WSChat("/ws/vote");
 *   chat.on("tally", (message) => draw(message.counts));
 *   const reply = await chat.request("vote", { choice: "tea" });
 */

/** "reconnecting" tries until it succeeds; "closed" is final. */
export type State = "connecting" | "open" | "reconnecting" | "closed";

export interface StateChange {
  state: State;
  /** The close code that led here, 0 if none did. */
  code: number;
  reason: string;
}

/** A JSON object with a `type`, as the server sends them. */
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
 * 1008 and 4000-4499. A page never sees the HTTP status of a refused handshake, only
 * 1006; to send a page away for good, accept it and close with a code from 4000 on.
 */
export function shouldReconnect(code: number): boolean;

/** Why a request failed. */
export class RequestError extends Error {
  constructor(code: string, message: string);
  /**
   * The server's own code, or "timeout", "full" (nothing was sent), "disconnected"
   * (after it was sent: it may have arrived or not).
   */
  code: string;
}

export class WSChat {
  /** Connects at once. `url` may be relative to the page; http becomes ws. */
  constructor(url: string);

  readonly state: State;

  /**
   * Call `handler` for each JSON message of this `type`; "*" means every message, also
   * text that is no JSON, and binary. Returns a function that ends it.
   */
  on(type: "*", handler: (message: unknown) => void): () => boolean;
  on<M extends Message>(type: string, handler: (message: M) => void): () => boolean;

  /**
   * Call `watcher` now and at each change. At "open" it runs before what waits is sent,
   * so a join sent from it arrives first. Returns a function that ends it.
   */
  onState(watcher: (change: StateChange) => void): () => boolean;

  /**
   * Send text, an ArrayBuffer, or anything else as JSON: now, or once connected.
   * @throws RequestError "full" over 64 KiB of waiting data, "disconnected" when closed
   */
  send(data: unknown): void;

  /**
   * Send `{ ...fields, type, ref }` and resolve to the server's reply with this `ref`;
   * reject with a RequestError. `timeout` is in milliseconds, 10 000 by default; what
   * still waits for the connection then is never sent.
   */
  request<R extends Reply>(
    type: string,
    fields?: Record<string, unknown>,
    options?: { timeout?: number },
  ): Promise<R>;

  /** Close for good. */
  close(code?: number, reason?: string): void;
}
