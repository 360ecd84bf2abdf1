// Each client as an application sets it up: how it asks once, and how it subscribes.
import { createHash } from 'node:crypto';
import { ApolloClient, ApolloLink, HttpLink, InMemoryCache, gql } from '@apollo/client';
import { PersistedQueryLink } from '@apollo/client/link/persisted-queries';
import { GraphQLWsLink } from '@apollo/client/link/subscriptions';
import { OperationTypeNode } from 'graphql';
import { Client, cacheExchange, fetchExchange, subscriptionExchange } from '@urql/core';
import { createClient as createSse } from 'graphql-sse';
import { createClient as createWs } from 'graphql-ws';
import WebSocket from 'ws';

const { URL: url, KEY: key } = process.env;
const headers = { 'x-api-key': key };
const socket = () =>
  createWs({
    url: url.replace('http', 'ws'),
    webSocketImpl: WebSocket,
    connectionParams: { apiKey: key },
    keepAlive: 1_000,
    lazy: true,
  });

// What all of them give: an asynchronous iterator over the results of an observable.
async function* iterate(start) {
  const queue = [];
  let wake = () => {};
  const put = (item) => (queue.push(item), wake());
  const stop = start({
    next: (value) => put({ value }),
    error: (error) => put({ error }),
    complete: () => put({ done: true }),
  });
  try {
    for (;;) {
      while (queue.length) {
        const { value, error, done } = queue.shift();
        if (done) return;
        if (error) throw error;
        yield value;
      }
      await new Promise((resolve) => (wake = resolve));
    }
  } finally {
    stop();
  }
}

const refused = (error) => {
  if (Array.isArray(error)) return { errors: error };
  throw error;
};

function iterating(client) {
  return {
    async ask(query, variables) {
      try {
        for await (const result of client.iterate({ query, variables })) return result;
      } catch (error) {
        return refused(error);
      }
    },
    async *subscribe(query, variables) {
      try {
        yield* client.iterate({ query, variables });
      } catch (error) {
        yield refused(error);
      }
    },
    close: () => client.dispose(),
  };
}

function apollo(link) {
  const client = new ApolloClient({ link, cache: new InMemoryCache() });
  const plain = ({ data, error }) => ({ data, errors: error?.errors ?? (error && [error]) });
  const options = { fetchPolicy: 'no-cache', errorPolicy: 'all' };
  return {
    async ask(query, variables) {
      const document = gql(query);
      return plain(
        document.definitions[0].operation === 'mutation'
          ? await client.mutate({ mutation: document, variables, ...options })
          : await client.query({ query: document, variables, ...options }),
      );
    },
    async *subscribe(query, variables) {
      const results = iterate((sink) => {
        const found = client.subscribe({ query: gql(query), variables, ...options }).subscribe(sink);
        return () => found.unsubscribe();
      });
      for await (const result of results) yield plain(result);
    },
    close: () => client.stop(),
  };
}

function urql(preferGetMethod, exchanges, fetchSubscriptions = false) {
  const client = new Client({
    url,
    exchanges,
    fetchSubscriptions,
    preferGetMethod,
    fetchOptions: { headers },
    requestPolicy: 'network-only',
  });
  const plain = ({ data, error }) => {
    if (error?.networkError) throw error.networkError;
    return { data, errors: error?.graphQLErrors };
  };
  return {
    async ask(query, variables) {
      const mutation = query.trimStart().startsWith('mutation');
      return plain(await client[mutation ? 'mutation' : 'query'](query, variables).toPromise());
    },
    async *subscribe(query, variables) {
      const results = iterate((sink) => {
        const found = client.subscription(query, variables).subscribe(sink.next);
        return () => found.unsubscribe();
      });
      for await (const result of results) yield plain(result);
    },
    close: () => {},
  };
}

const webSocketExchange = () => {
  const client = socket();
  return subscriptionExchange({
    forwardSubscription: ({ query, variables }) => ({
      subscribe: (sink) => ({ unsubscribe: client.subscribe({ query, variables }, sink) }),
    }),
  });
};

const sha256 = (text) => createHash('sha256').update(text).digest('hex');
const http = () => new HttpLink({ uri: url, headers });

export const CLIENTS = {
  'graphql-ws': () => iterating(socket()),
  'graphql-sse': () => iterating(createSse({ url, headers, retryAttempts: 0 })),
  'apollo-http-multipart': () => apollo(http()),
  'apollo-persisted-get': () =>
    apollo(new PersistedQueryLink({ sha256, useGETForHashedQueries: true }).concat(http())),
  'apollo-ws': () =>
    apollo(
      ApolloLink.split(
        ({ operationType }) => operationType === OperationTypeNode.SUBSCRIPTION,
        new GraphQLWsLink(socket()),
        http(),
      ),
    ),
  'urql-post-sse': () => urql(false, [cacheExchange, fetchExchange], true),
  'urql-get-sse': () => urql('force', [cacheExchange, fetchExchange], true),
  'urql-ws': () => urql(false, [cacheExchange, webSocketExchange(), fetchExchange]),
};
