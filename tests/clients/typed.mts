// Types that do not catch mistakes are decoration: each line below an expectation must be refused.
import { JOB_EVENTS, JOB_METRICS } from '../../docs/examples/events.ts';
import { luthier } from '../../docs/examples/luthier.ts';

const { query, subscribe } = luthier({ url: '/graphql', apiKey: '' });

export async function watch(jobId: string): Promise<number | null> {
  for await (const { jobMetrics } of subscribe(JOB_METRICS, { jobId }, { after: '0' })) {
    for (const { trainingLoss } of jobMetrics.points) return trainingLoss;
  }
  for await (const { jobEvents } of subscribe(JOB_EVENTS, { jobId })) {
    // @ts-expect-error an event has no loss
    jobEvents.trainingLoss;
  }
  // @ts-expect-error the variable is called jobId
  subscribe(JOB_EVENTS, { job: jobId });
  const { job } = await query<{ job: { status: string } | null }>('{ job(id: "x") { status } }');
  // @ts-expect-error there may be no such job
  job.status;
  return null;
}

// What graphql-codegen's client preset makes of a document with documentMode 'string'.
class TypedDocumentString<TResult, TVariables> extends String {
  declare __apiType?: (variables: TVariables) => TResult;
}
const generated = new TypedDocumentString<{ viewer: { role: string } }, { [key: string]: never }>('…');
export const role: Promise<string> = query(generated).then(({ viewer }) => viewer.role);
