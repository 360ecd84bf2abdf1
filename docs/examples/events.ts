// What one watches, with its types. With graphql-codegen they come from schema.graphql instead
// (preset: 'client', documentMode: 'string'): its documents are taken as they are.
import type { TypedDocument } from './luthier.ts';

export type JobStatus =
  | 'PENDING' | 'VALIDATING' | 'QUEUED' | 'RUNNING' | 'PAUSED'
  | 'SUCCEEDED' | 'FAILED' | 'CANCELLED';

export interface JobEvent {
  cursor: string;
  type: string; // STATUS, METRICS, CHECKPOINT, MESSAGE …: new ones may be added
  level: 'DEBUG' | 'INFO' | 'WARN' | 'ERROR';
  message: string;
  at: string;
  step: number | null;
  data: Record<string, unknown>; // its keys depend on the type
}

export interface MetricPoint {
  attempt: number;
  step: number;
  epoch: number | null;
  trainingLoss: number | null; // of all values: null too where it was no finite number,
  validationLoss: number | null;
  learningRate: number | null;
  nonFinite: string[]; // and then it is named here
  timestamp: string;
}

export interface MetricBatch {
  cursor: string;
  points: MetricPoint[];
}

export interface JobProgress {
  step: number;
  totalSteps: number | null;
  percent: number | null;
  estimatedFinishAt: string | null;
}

export interface JobChange {
  cursor: string;
  type: string; // STATUS, DELETED, PROGRESS: new ones may be added
  jobId: string;
  statusThen: JobStatus | null;
  matches: boolean; // false once, when a job leaves the filter
  progress: JobProgress | null;
}

const typed = <T, V>(text: string) => text as TypedDocument<T, V>;

export const JOB_EVENTS = typed<{ jobEvents: JobEvent }, { jobId: string; after?: string }>(`
  subscription JobEvents($jobId: ID!, $after: String) {
    jobEvents(jobId: $jobId, after: $after) { cursor type level message at step data }
  }`);

export const JOB_METRICS = typed<{ jobMetrics: MetricBatch }, { jobId: string; after?: string }>(`
  subscription JobMetrics($jobId: ID!, $after: String) {
    jobMetrics(jobId: $jobId, after: $after) {
      cursor
      points { attempt step epoch trainingLoss validationLoss learningRate nonFinite timestamp }
    }
  }`);

export const JOB_CHANGES = typed<{ jobChanges: JobChange }, { filter?: object; after?: string }>(`
  subscription JobChanges($filter: JobFilter, $after: String) {
    jobChanges(filter: $filter, after: $after) {
      cursor type jobId statusThen matches
      progress { step totalSteps percent estimatedFinishAt }
    }
  }`);
