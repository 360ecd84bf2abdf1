// Relay with subscriptions that resume: useSubscription as ever, `after` in its variables.
import {
  Environment, Network, Observable, RecordSource, Store, type PayloadData,
} from 'relay-runtime';
import { luthier } from './luthier.ts';
import { pour } from './pour.ts';

export function relay(url: string, apiKey: string): Environment {
  const client = luthier({ url, apiKey });
  return new Environment({
    network: Network.create(
      async ({ text }, variables) => ({
        data: await client.query<PayloadData>(text ?? '', variables),
      }),
      ({ text }, variables) =>
        Observable.create((sink) => pour(client, text ?? '', variables, sink)),
    ),
    store: new Store(new RecordSource()),
  });
}
