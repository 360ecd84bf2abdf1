// urql with subscriptions that resume: useSubscription as ever, `after` in its variables.
import { Client, cacheExchange, fetchExchange, subscriptionExchange } from '@urql/core';
import { luthier } from './luthier.ts';
import { pour } from './pour.ts';

export function urql(url: string, apiKey: string): Client {
  const client = luthier({ url, apiKey });
  const live = subscriptionExchange({
    forwardSubscription: ({ query = '', variables = {} }) => ({
      subscribe: (sink) => ({ unsubscribe: pour(client, query, variables, sink) }),
    }),
  });
  return new Client({
    url,
    exchanges: [cacheExchange, live, fetchExchange],
    fetchOptions: { headers: { 'x-api-key': apiKey } },
  });
}
