// Drives one client through everything an application does, and tells each step as a line of JSON.
import { CLIENTS } from './clients.mjs';

const { JOB: job, CLIENT: name } = process.env;
const EVENTS = `subscription Watch($job: ID!, $after: String) {
  jobEvents(jobId: $job, after: $after) { cursor type }
}`;
const say = (step, value) => console.log(JSON.stringify({ step, value }));
const codes = ({ errors }) => (errors ?? []).map(({ extensions }) => extensions?.code);

// urql leaves the abort of its own request unhandled; in a browser that is a line in the console.
process.on('unhandledRejection', (error) => {
  if (error?.name !== 'AbortError') throw error;
});

const client = CLIENTS[name]();
say('query', (await client.ask('query Who($id: ID!) { job(id: $id) { id } }', { id: job })).data);
say('again', (await client.ask('query Who($id: ID!) { job(id: $id) { id } }', { id: job })).data);
say(
  'mutation',
  (
    await client.ask(
      'mutation Stop($i: CancelJobInput!) { cancelJob(input: $i) { userErrors { code } } }',
      { i: { id: 'nowhere' } },
    )
  ).data,
);
say('invalid', codes(await client.ask('query Wrong { nothing }', {})));
say('refused', codes(await client.ask('query Deep { jobs(first: 1000) { totalCount } }', {})));

for await (const result of client.subscribe(EVENTS, { job: 'nowhere', after: null })) {
  say('no such job', codes(result));
  break;
}

const seen = [];
for await (const { data, errors } of client.subscribe(EVENTS, { job, after: '0' })) {
  if (errors) throw new Error(JSON.stringify(errors));
  seen.push(data.jobEvents.cursor);
  if (seen.length === 2) break;
}
say('left', seen);
for await (const { data, errors } of client.subscribe(EVENTS, { job, after: seen.at(-1) })) {
  if (errors) throw new Error(JSON.stringify(errors));
  seen.push(data.jobEvents.cursor);
  say('event', data.jobEvents);
  if (data.jobEvents.type === 'STATUS') break;
}
say('seen', seen);
await client.close();
process.exit(0);
