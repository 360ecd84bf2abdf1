// Apollo, urql and Relay as docs/examples sets them up: a query, and a subscription from "0".
import { gql } from '@apollo/client';
import { apollo } from '../../docs/examples/apollo.ts';
import { relay } from '../../docs/examples/relay.ts';
import { urql } from '../../docs/examples/urql.ts';

const { URL: url, KEY: key, JOB: job, CLIENT: name } = process.env;
const QUERY = 'query Who($job: ID!) { job(id: $job) { id } }';
const EVENTS = `subscription Watch($job: ID!, $after: String) {
  jobEvents(jobId: $job, after: $after) { cursor }
}`;
const say = (step, value) => console.log(JSON.stringify({ step, value }));
const begin = { job, after: '0' };
const sink = (complete) => ({
  next: ({ data, error }) => say(error ? 'error' : 'event', error ?? data.jobEvents.cursor),
  error: (error) => say('error', String(error)),
  complete,
});

const CLIENTS = {
  async apollo(complete) {
    const client = apollo(url, key);
    say('query', (await client.query({ query: gql(QUERY), variables: { job } })).data.job.id);
    client.subscribe({ query: gql(EVENTS), variables: begin }).subscribe(sink(complete));
  },
  async urql(complete) {
    const client = urql(url, key);
    say('query', (await client.query(QUERY, { job }).toPromise()).data.job.id);
    client.subscription(EVENTS, begin).subscribe(sink(complete).next);
  },
  async relay(complete) {
    const network = relay(url, key).getNetwork();
    const query = { text: QUERY, operationKind: 'query' };
    say('query', (await network.execute(query, { job }, {}).toPromise()).data.job.id);
    const watch = { text: EVENTS, operationKind: 'subscription' };
    network.execute(watch, begin, {}).subscribe(sink(complete));
  },
};
await CLIENTS[name](() => say('complete'));
