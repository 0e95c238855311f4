/**
 * What goes over the wire is described twice, in wschat.d.ts by hand and in the schema of
 * the protocol: `tsc` names here a field in which they differ, be it in its name, in
 * whether it may be left out, or in its type. "schema" is made of docs/protocol by the
 * test.
 */

import type {
  ChatEvents,
  ChatRequests,
  Json,
  Limits,
  Rate,
  Refusal,
  Reply,
  Stored,
} from "flask-wschat";
import type * as schema from "schema";

type Keys<T> = T extends unknown ? keyof T : never;

/** Those that some of a union's members leave out. */
type Optional<T> = T extends unknown
  ? { [K in keyof T]-?: {} extends Pick<T, K> ? K : never }[keyof T]
  : never;

type Value<T, K> = T extends unknown
  ? K extends keyof T
    ? unknown extends T[K]
      ? Json
      : Exclude<T[K], undefined>
    : never
  : never;

type Same<A, B> = [A] extends [B] ? ([B] extends [A] ? true : false) : false;

/** Arrays of what is one type here and several there, by their fields. */
type Alike<A, B> = [A, B] extends [(infer One)[], (infer Other)[]]
  ? Same<Differing<One, Other>, never>
  : Same<A, B>;

/** The names of the fields in which `A` and `B` are not the same; never: in none. */
type Differing<A, B> = {
  [K in Keys<A> | Keys<B>]: [
    Same<K extends Keys<A> ? 1 : 0, K extends Keys<B> ? 1 : 0>,
    Same<K extends Optional<A> ? 1 : 0, K extends Optional<B> ? 1 : 0>,
    Alike<Value<A, K>, Value<B, K>>,
  ] extends [true, true, true]
    ? never
    : K;
}[Keys<A> | Keys<B>];

/** `any` would be like everything. */
type Told<T> = 0 extends 1 & T ? { any: true } : T;

/** The same for each entry of two maps: `"tally.total"`. */
type Differences<A, B> = {
  [Name in (keyof A | keyof B) & string]: Name extends keyof A & keyof B
    ? Differing<Told<A[Name]>, B[Name]> extends infer Fields extends string
      ? [Fields] extends [never]
        ? never
        : `${Name}.${Fields}`
      : never
    : Name;
}[(keyof A | keyof B) & string];

/** The fields of a request, or of its reply, that not all of them have. */
type Own<T> = { [K in keyof T]: Omit<T[K], "type" | "ref" | "ok"> };
type Asked = { [K in keyof ChatRequests]: ChatRequests[K]["fields"] };
type Replied = { [K in keyof ChatRequests]: ChatRequests[K]["reply"] };

declare function differences<T>(): T;

differences<Differences<Omit<ChatEvents, "reply">, schema.Events>>() satisfies never;
differences<Differences<Asked, Own<schema.Requests>>>() satisfies never;
differences<Differences<Replied, Own<schema.Replies>>>() satisfies never;
differences<Differing<Reply, schema.PingReply>>() satisfies never;
differences<Differing<Stored, schema.SayReply>>() satisfies never;
differences<Differing<Refusal, schema.ErrorReply>>() satisfies never;
differences<Differing<Refusal["error"], schema.Error>>() satisfies never;
differences<Differing<Limits, schema.Limits>>() satisfies never;
differences<Differing<Rate, schema.Rate>>() satisfies never;
