// Apollo Client with subscriptions that resume: useSubscription as ever, `after` in its variables.
import { ApolloClient, ApolloLink, HttpLink, InMemoryCache, Observable } from '@apollo/client';
import { OperationTypeNode, print } from 'graphql';
import { luthier } from './luthier.ts';
import { pour } from './pour.ts';

export function apollo(url: string, apiKey: string): ApolloClient {
  const client = luthier({ url, apiKey });
  const live = new ApolloLink(
    ({ query, variables }) =>
      new Observable((sink) => pour(client, print(query), variables, sink)),
  );
  const once = new HttpLink({ uri: url, headers: { 'x-api-key': apiKey } });
  return new ApolloClient({
    cache: new InMemoryCache(),
    link: ApolloLink.split(
      ({ operationType }) => operationType === OperationTypeNode.SUBSCRIPTION, live, once,
    ),
  });
}
