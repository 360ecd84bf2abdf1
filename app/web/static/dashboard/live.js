// One WebSocket for every subscription, over graphql-transport-ws. Each feed keeps the cursor of
// its last message in `after`: when the socket comes back, it goes on from there.
const REFUSED = [4401, 4403];
const LONGEST_WAIT = 8_000;
const QUIET = 12_000; // then a ping is sent,
const SILENT = 20_000; // and here the socket is given up: half-open ones never close by themselves

export class Live {
  #url; #key; #onState; #onRefused;
  #socket = null; #acknowledged = false; #closed = false;
  #feeds = new Map(); #next = 1;
  #failures = 0; #timer = null; #heard = 0; #watch = null; #wasLive = false;

  constructor({ url, key, onState, onRefused }) {
    this.#url = url;
    this.#key = key;
    this.#onState = onState;
    this.#onRefused = onRefused;
    addEventListener('online', this.#hurry);
    document.addEventListener('visibilitychange', this.#hurry);
  }

  // `hooks`: next(data), complete(), error(message). The feed can be stopped, and reopened where
  // it was after the server has completed it.
  subscribe(query, variables, hooks) {
    const feed = { id: String(this.#next++), query, variables: { ...variables }, hooks, over: true };
    const open = () => {
      if (!feed.over || this.#closed) return;
      feed.over = false;
      this.#feeds.set(feed.id, feed);
      if (this.#acknowledged) this.#send(feed);
      else this.#connect();
    };
    open();
    return {
      get over() { return feed.over; },
      reopen: open,
      stop: () => this.#stop(feed),
    };
  }

  close() {
    this.#closed = true;
    this.#feeds.clear();
    clearTimeout(this.#timer);
    clearInterval(this.#watch);
    removeEventListener('online', this.#hurry);
    document.removeEventListener('visibilitychange', this.#hurry);
    this.#socket?.close(1000);
  }

  #stop(feed) {
    if (feed.over) return;
    this.#end(feed);
    if (this.#acknowledged) this.#socket.send(JSON.stringify({ id: feed.id, type: 'complete' }));
  }

  #end(feed) {
    feed.over = true;
    this.#feeds.delete(feed.id);
  }

  #send({ id, query, variables }) {
    this.#socket.send(JSON.stringify({ id, type: 'subscribe', payload: { query, variables } }));
  }

  #hurry = () => {
    if (this.#timer && !document.hidden) { this.#failures = 0; this.#connect(); }
  };

  #connect() {
    if (this.#socket || this.#closed) return;
    clearTimeout(this.#timer);
    this.#timer = null;
    this.#onState(this.#wasLive ? 'reconnecting' : 'connecting');
    const socket = new WebSocket(this.#url, 'graphql-transport-ws');
    this.#socket = socket;
    this.#heard = Date.now();
    socket.onopen = () => {
      const payload = { apiKey: this.#key };
      socket.send(JSON.stringify({ type: 'connection_init', payload }));
    };
    socket.onmessage = (message) => this.#take(socket, JSON.parse(message.data));
    socket.onclose = (event) => this.#lost(socket, event.code);
    clearInterval(this.#watch);
    this.#watch = setInterval(() => this.#check(socket), QUIET / 3);
  }

  #check(socket) {
    const quiet = Date.now() - this.#heard;
    if (quiet > SILENT) {
      socket.close(4000, 'silent');
      this.#lost(socket, 4000); // a dead peer answers no close either: do not wait for it
    } else if (quiet > QUIET && this.#acknowledged) {
      socket.send('{"type":"ping"}');
    }
  }

  #take(socket, message) {
    if (socket !== this.#socket) return;
    this.#heard = Date.now();
    const feed = this.#feeds.get(message.id);
    switch (message.type) {
      case 'connection_ack':
        this.#acknowledged = this.#wasLive = true;
        this.#failures = 0;
        this.#onState('live');
        for (const waiting of this.#feeds.values()) this.#send(waiting);
        break;
      case 'ping':
        socket.send('{"type":"pong"}');
        break;
      case 'next':
        if (feed) this.#deliver(feed, message.payload);
        break;
      case 'error':
        if (feed) { this.#end(feed); feed.hooks.error?.(message.payload[0]?.message); }
        break;
      case 'complete':
        if (feed) { this.#end(feed); feed.hooks.complete?.(); }
        break;
      default:
    }
  }

  #deliver(feed, { data, errors }) {
    const [value] = Object.values(data ?? {});
    if (!value) {
      this.#stop(feed);
      feed.hooks.error?.(errors?.[0].message);
      return;
    }
    if (value.cursor) feed.variables.after = value.cursor;
    feed.hooks.next(value);
  }

  #lost(socket, code) {
    if (socket !== this.#socket) return;
    this.#socket = null;
    this.#acknowledged = false;
    clearInterval(this.#watch);
    if (this.#closed) return;
    if (REFUSED.includes(code)) {
      this.#closed = true;
      this.#onRefused();
      return;
    }
    this.#onState('reconnecting');
    const wait = Math.min(LONGEST_WAIT, 300 * 2 ** this.#failures++);
    this.#timer = setTimeout(() => this.#connect(), wait * (0.7 + 0.6 * Math.random()));
  }
}
