// The example client of docs/examples in different situations; each step is told as a line of JSON.
import { once } from 'node:events';
import { mock } from 'node:test';
import { GraphQLError, luthier } from '../../docs/examples/luthier.ts';
import { JOB_EVENTS } from '../../docs/examples/events.ts';

const { URL: url, KEY: apiKey, JOB: jobId, WAY: way, DOCUMENT: document } = process.env;
const { query, subscribe } = luthier({ url, apiKey });
const say = (step, value) => console.log(JSON.stringify({ step, value }));
const told = (error) => {
  if (!(error instanceof GraphQLError)) throw error;
  const { code, message, requestId } = error;
  say('error', { code, message, requestId });
};
const events = (options) => subscribe(JOB_EVENTS, { jobId }, { after: '0', ...options });

const WAYS = {
  async watch() {
    const onState = (state) => say('state', state);
    for await (const { jobEvents } of events({ onState })) say('event', jobEvents.cursor);
    say('complete');
  },
  async any() {
    const numbers = [];
    for await (const { stream } of subscribe(document, {}, { after: '0' })) {
      numbers.push(stream.number);
    }
    say('numbers', numbers);
  },
  async silence() {
    mock.timers.enable({ apis: ['setInterval'] });
    const onState = (state) => {
      say('state', state);
      // Once for the ping, and once more for want of an answer.
      if (state === 'live') setTimeout(() => [15_000, 15_000].map((ms) => mock.timers.tick(ms)), 20);
    };
    for await (const { stream } of subscribe(document, {}, { after: '0', onState })) {
      say('number', stream.number);
    }
  },
  async slow() {
    const seen = [];
    for await (const { jobEvents } of events()) {
      if (seen.push(jobEvents.cursor) > 1) continue;
      say('first');
      await once(process.stdin, 'data');
      process.stdin.unref();
    }
    say('seen', seen);
  },
  async leave() {
    const left = new AbortController();
    for await (const { jobEvents } of events({ signal: left.signal })) {
      say('event', jobEvents.cursor);
      if (jobEvents.cursor === 's2') setTimeout(() => left.abort(), 20); // while it waits for more
    }
    say('left');
    for await (const { jobEvents } of events()) {
      say('event', jobEvents.cursor);
      break;
    }
  },
  async ask() {
    say('answer', await query('query ($id: ID!) { job(id: $id) { id } }', { id: jobId }));
    await query('{ jobs(first: 1000) { totalCount } }');
  },
  async mistakes() {
    for (const text of [
      'subscription { jobEvents(jobId: "x") { cursor } }',
      `subscription ($after: String) { jobEvents(jobId: "${jobId}", after: $after) { type } }`,
    ]) {
      try {
        for await (const _ of subscribe(text, {}, { after: '0' }));
      } catch (error) {
        say('mistake', error.message);
      }
    }
  },
};
await WAYS[way]().catch(told);
