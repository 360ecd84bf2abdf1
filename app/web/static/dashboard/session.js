// What one key can do: queries and mutations over HTTP, subscriptions over one WebSocket.
import { Live } from './live.js';

const REFUSED = /^(UNAUTHENTICATED|API_KEY_(MISSING|INVALID|EXPIRED|REVOKED))$/;

export class Session {
  constructor({ root, key, onState, onAccepted, onRefused }) {
    this.root = root;
    this.key = key;
    this.onAccepted = onAccepted;
    this.onRefused = onRefused;
    const url = new URL(`${root}/graphql`, location.href);
    url.protocol = url.protocol.replace('http', 'ws');
    this.live = new Live({ url: url.href, key, onState, onRefused });
  }

  close() {
    this.closed = true;
    this.live.close();
  }

  async ask(query, variables = {}) {
    const response = await this.fetch('/graphql', { query, variables }).catch(() => {
      throw new Error('The server does not answer. Trying again …');
    });
    const result = await response.json().catch(() => null);
    const error = result?.errors?.[0];
    if (response.status === 401 || REFUSED.test(error?.extensions?.code)) this.#refuse();
    else if (!this.closed) this.onAccepted();
    // A field that could not be told is null beside an error: the rest is as good as ever.
    const { data } = result ?? {};
    if (data && !(error && Object.values(data).includes(null))) return data;
    throw new Error(error?.message ?? `The server answered with HTTP ${response.status}.`);
  }

  // The payload of a mutation. An expected refusal comes as an Error in the server's own words.
  async change(verb, input, fields) {
    const kind = `${verb[0].toUpperCase()}${verb.slice(1)}Input`;
    const data = await this.ask(
      `mutation ($input: ${kind}!) { ${verb}(input: $input) { ${fields} userErrors { message } } }`,
      { input },
    );
    const payload = data[verb];
    if (payload.userErrors.length) {
      throw new Error(payload.userErrors.map((refusal) => refusal.message).join(' '));
    }
    return payload;
  }

  fetch(path, body, options = {}) {
    return fetch(`${this.root}${path}`, {
      method: body ? 'POST' : 'GET',
      credentials: 'omit',
      body: body && JSON.stringify(body),
      ...options,
      headers: {
        ...(body && { 'Content-Type': 'application/json' }),
        'X-API-Key': this.key,
        ...options.headers,
      },
    });
  }

  #refuse() {
    if (!this.closed) this.onRefused();
  }
}
