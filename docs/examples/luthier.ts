/**
 * A client of Luthier in one file, for browsers and for Node 22 or newer: copy it. Its
 * subscriptions survive their connections: each keeps its last cursor, and resumes after it.
 */

/** A document; typed, if it comes from events.ts or graphql-codegen (documentMode 'string'). */
export type TypedDocument<T, V> = string | { toString(): string; __apiType?: (variables: V) => T };
export type Variables = Record<string, unknown>;
export type ErrorEntry = { message: string; extensions?: Variables };
export type SubscribeOptions = {
  after?: string; // a cursor, "0" for the beginning; left out: `variables.after`, else from now on
  signal?: AbortSignal; // ends the loop, quietly
  onState?: (state: 'live' | 'reconnecting') => void;
};

/** The server refused. What it merely could not do for a mutation is in `userErrors`, not here. */
export class GraphQLError extends Error {
  override readonly name = 'GraphQLError';
  readonly code: string; // API_KEY_REVOKED, JOB_NOT_FOUND, LIMIT_EXCEEDED, UNREACHABLE …
  readonly requestId: string | undefined; // quote it to the operator
  readonly errors: ErrorEntry[];

  constructor(errors: ErrorEntry[], code = 'UNAVAILABLE') {
    super(errors[0]?.message ?? 'The server gave no reason.');
    const { code: given, requestId } = errors[0]?.extensions ?? {};
    this.code = typeof given === 'string' ? given : code;
    this.requestId = typeof requestId === 'string' ? requestId : undefined;
    this.errors = errors;
  }
}

const FIRST_WAIT = 250, LONGEST_WAIT = 10_000; // milliseconds before trying again
const PATIENCE = 6; // tries to connect for the first time
const PULSE = 15_000; // milliseconds of silence before a ping; and as many more before giving up
const MOST_WAITING = 1_000; // results; past it, let go of the connection and resume in good time
const COMES_BACK = ['UNAVAILABLE', 'RATE_LIMITED'];
const REFUSALS = [1003, 1007, 1008, 1009, 1010, 4400, 4401, 4403, 4406, 4409, 4429]; // closings

export function luthier({ url, apiKey }: { url: string; apiKey: string }) {
  const door = new URL(url, globalThis.location?.href);

  /** The data of a query or a mutation. Throws GraphQLError, and whatever `fetch` throws. */
  async function query<T, V extends object = Variables>(
    document: TypedDocument<T, V>, variables?: V, { signal }: { signal?: AbortSignal } = {},
  ): Promise<T> {
    const answer = await fetch(door, {
      method: 'POST',
      headers: { 'content-type': 'application/json', 'x-api-key': apiKey },
      body: JSON.stringify({ query: document.toString(), variables }),
      signal: signal ?? null,
    });
    const { data, errors } = await answer.json().catch(() => ({})); // a proxy answers in HTML
    if (data && !errors) return data as T;
    const status = `HTTP_${answer.status}`;
    throw new GraphQLError(errors ?? [{ message: `${door} answered ${status}.` }], status);
  }

  /**
   * The results until there will be no more: no gap and no repeat, whatever becomes of connections.
   * The document passes `after: $after` and selects `cursor`. With no cursor to begin with, what
   * happens before the first result may be missed. Leave with `break`, or by the signal.
   */
  async function* subscribe<T, V extends object = Variables>(
    document: TypedDocument<T, V>, variables?: V, { after, signal, onState }: SubscribeOptions = {},
  ): AsyncGenerator<T, void, undefined> {
    const text = document.toString();
    if (!/\bafter:\s*\$after\b/.test(text)) throw new TypeError('Pass `after: $after` to resume.');
    const given: Variables = { ...variables, ...(after && { after }) };
    for (let failures = 1, met = false; !signal?.aborted; failures++) {
      let upSince = Infinity;
      const up = () => { met = true; upSince = Date.now(); onState?.('live'); };
      try {
        for await (const data of results(text, given, up, signal)) {
          const [result] = Object.values(data) as { cursor?: string }[];
          if (!result?.cursor) throw new TypeError('Select `cursor` to resume.');
          given.after = result.cursor;
          failures = 0;
          yield data as T;
        }
        return;
      } catch (error) {
        if (!(error instanceof GraphQLError && COMES_BACK.includes(error.code))) throw error;
        if (!met && failures >= PATIENCE) throw new GraphQLError(error.errors, 'UNREACHABLE');
        onState?.('reconnecting');
        if (Date.now() - upSince > LONGEST_WAIT) failures = 0; // it was quiet, but it held
        const asked = Number(error.errors[0]?.extensions?.retryAfter ?? 0) * 2_000; // halved below
        const wait = Math.max(asked, Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** failures));
        await pause(wait * (0.5 + Math.random() / 2), signal); // not all clients at the same moment
      }
    }
  }

  /** What one connection brings. Throws GraphQLError, UNAVAILABLE where coming back is right. */
  async function* results(query: string, variables: object, up: () => void, signal?: AbortSignal) {
    const waiting: object[] = [];
    let end: 'complete' | Error | undefined, wake = () => {}, heard = true;
    const socket = new WebSocket(door.href.replace(/^http/, 'ws'), 'graphql-transport-ws');
    const say = (message: object) => socket.send(JSON.stringify(message));
    const finish = (why: 'complete' | Error) => { end ??= why; socket.close(1000); wake(); };
    const lose = (message: string, code?: string) => finish(new GraphQLError([{ message }], code));
    const abort = () => finish('complete');
    const pulse = setInterval(() => {
      if (!heard) lose('silence'); // the dead do not take part in a closing handshake
      else if (socket.readyState === WebSocket.OPEN) say({ type: 'ping' });
      heard = false;
    }, PULSE);
    signal?.addEventListener('abort', abort);
    socket.onopen = () => say({ type: 'connection_init', payload: { apiKey } });
    socket.onclose = ({ code, reason }) => {
      const kind = REFUSALS.includes(code) ? 'BAD_REQUEST' : 'UNAVAILABLE';
      lose(`${door.host} said ${code} ${reason}`, code === 4403 ? reason : kind); // or a code
    };
    socket.onmessage = ({ data }) => {
      if (end) return;
      heard = true;
      const { type, payload } = JSON.parse(data);
      const errors: ErrorEntry[] | undefined = type === 'error' ? payload : payload?.errors;
      if (errors) finish(new GraphQLError(errors));
      else if (type === 'connection_ack') {
        say({ id: '1', type: 'subscribe', payload: { query, variables } });
        up();
      } else if (type === 'ping') say({ type: 'pong' });
      else if (type === 'complete') finish('complete');
      else if (type === 'next' && waiting.push(payload.data) >= MOST_WAITING) lose('too slow');
      wake();
    };
    try {
      for (;;) {
        for (let data; !signal?.aborted && (data = waiting.shift()); ) yield data;
        if (end === 'complete' || signal?.aborted) return;
        if (end) throw end;
        await new Promise<void>((resolve) => { wake = resolve; });
      }
    } finally {
      clearInterval(pulse);
      signal?.removeEventListener('abort', abort);
      abort();
    }
  }
  return { query, subscribe };
}

function pause(milliseconds: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(done, milliseconds);
    signal?.addEventListener('abort', done);
    function done() { clearTimeout(timer); signal?.removeEventListener('abort', done); resolve(); }
  });
}
