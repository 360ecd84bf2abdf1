// node watch-job.ts [job]: the log of a job, the newest if none is named, until the job is over.
// Restart the server meanwhile, or pull the cable: nothing is lost and nothing comes twice.
import process from 'node:process';
import { JOB_EVENTS } from './events.ts';
import { luthier } from './luthier.ts';

const { LUTHIER_URL = 'http://127.0.0.1:8000', LUTHIER_API_KEY: apiKey = '' } = process.env;
const { query, subscribe } = luthier({ url: `${LUTHIER_URL}/graphql`, apiKey });

type Newest = { jobs: { nodes: { id: string }[] } };
const { jobs } = await query<Newest>('{ jobs(first: 1) { nodes { id } } }');
const jobId = process.argv[2] ?? jobs.nodes[0]?.id;
if (!jobId) throw new Error('There is no job yet.');

const onState = (state: string) => console.error(`(${state})`);
for await (const { jobEvents } of subscribe(JOB_EVENTS, { jobId }, { after: '0', onState })) {
  const { cursor, type, message } = jobEvents;
  console.log(cursor.padEnd(7), type.padEnd(16), message);
}
