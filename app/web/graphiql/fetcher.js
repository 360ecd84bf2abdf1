// Sends GraphiQL's operations: queries and mutations over HTTP, subscriptions over
// graphql-transport-ws, both with the key that is current when they start.
import { CloseCode, createClient } from 'graphql-ws';
import { Kind, parse } from 'graphql';
import { fill, names } from './placeholders.js';

const REFUSED = /^(UNAUTHENTICATED|API_KEY_(MISSING|INVALID|EXPIRED|REVOKED))$/;
const problem = (message) => ({ errors: [{ message }] });

async function post(page, headers, params) {
  const response = await fetch(page.endpoint, {
    method: 'POST',
    credentials: 'omit',
    headers: {
      Accept: 'application/graphql-response+json, application/json;q=0.9',
      'Content-Type': 'application/json',
      ...(page.key() && { 'X-API-Key': page.key() }),
      ...headers,
    },
    body: JSON.stringify(params),
  });
  const text = await response.text();
  let result;
  try {
    result = JSON.parse(text);
  } catch {
    result = problem(`HTTP ${response.status}: ${text.slice(0, 500) || response.statusText}`);
  }
  const refused = response.status === 401
    || result?.errors?.some((error) => REFUSED.test(error.extensions?.code));
  if (page.key()) page.onKey(refused ? 'refused' : 'accepted');
  return result;
}

// The header editor speaks HTTP; over the socket its two credentials go into connection_init.
function connectionParams(page, headers) {
  const params = page.key() ? { apiKey: page.key() } : {};
  for (const [name, value] of Object.entries(headers)) {
    if (name.toLowerCase() === 'x-api-key') params.apiKey = value;
    if (name.toLowerCase() === 'authorization') params.authorization = value;
  }
  return params;
}

function subscribe(page, headers, params, sink) {
  let over = false; // the socket is closed after the last word, and says so then
  const say = (state) => over || page.onLive(state);
  const client = createClient({
    url: page.endpoint.replace(/^http/, 'ws'),
    connectionParams: () => connectionParams(page, headers),
    keepAlive: 20_000,
    retryAttempts: 12,
    retryWait: (n) => new Promise((done) => setTimeout(done, Math.min(500 * 2 ** n, 8_000))),
    shouldRetry: (event) => event.code !== CloseCode.Forbidden,
    on: {
      connecting: (again) => say(again ? 'reconnecting' : 'connecting'),
      connected: () => say('live'),
      closed: () => say('reconnecting'),
    },
  });
  // graphql-ws sends this same object again after a reconnect: moving its `after` on makes the
  // server continue behind the last message instead of starting over or losing the gap.
  const payload = { ...params, variables: { ...params.variables } };
  const resumable = /\$after\b/.test(params.query);
  const end = () => { say(null); over = true; };
  const stop = client.subscribe(payload, {
    next(result) {
      const cursor = resumable && Object.values(result.data ?? {})[0]?.cursor;
      if (cursor) payload.variables.after = cursor;
      sink.next(result);
    },
    error(error) {
      end();
      if (error?.code === CloseCode.Forbidden || error?.code === CloseCode.Unauthorized) {
        page.onKey('refused');
      }
      if (Array.isArray(error)) sink.next({ errors: error });
      else if (error?.code) {
        sink.next(problem(`The connection was closed: ${error.code} ${error.reason || ''}`.trim()));
      } else sink.next(problem(error?.message || 'The connection could not be opened.'));
      sink.complete();
    },
    complete() {
      end();
      sink.complete();
    },
  });
  return { unsubscribe: () => { stop(); end(); void client.dispose(); } };
}

// GraphiQL parses a moment after each edit: run right after a change of tab, it still names the
// operation of the tab before. So the text that is sent is what decides.
function chooseOperation(query, operationName) {
  try {
    const operations = parse(query).definitions.filter((d) => d.kind === Kind.OPERATION_DEFINITION);
    return operations.find((d) => d.name?.value === operationName)
      ?? (operations.length === 1 ? operations[0] : null);
  } catch {
    return null; // the server explains what is wrong with it
  }
}

export function createFetcher(page) {
  return async (asked, { headers = {} } = {}) => {
    const operation = chooseOperation(asked.query, asked.operationName);
    const operationName = operation ? operation.name?.value : asked.operationName;
    let params = { ...asked, operationName };
    try {
      if (operation && names(params.variables, page.placeholders).length) {
        const variables = await fill(params.variables, operation, page.placeholders,
          (query) => post(page, headers, { query }));
        params = { ...params, variables };
        page.onFilled(variables);
      }
    } catch (error) {
      return problem(error.message);
    }
    if (operation?.operation !== 'subscription') return post(page, headers, params);
    return { subscribe: (sink) => subscribe(page, headers, params, sink) };
  };
}
