// Every operation the dashboard sends.
export const JOB_ROW = `fragment Row on Job {
  id name description status requestedAction provider baseModel createdAt startedAt finishedAt
  progress { step totalSteps epoch totalEpochs percent trainedTokens tokensPerSecond estimatedFinishAt }
  latestMetrics { step trainingLoss }
  error { message }
}`;

// What changes without an event, by mere silence: asked for again and again.
const WAIT = 'isStale queueReason';

export const WAITS = `query Waits($ids: [ID!]!) { nodes(ids: $ids) { ... on Job { id ${WAIT} } } }`;

export const STANDING = `query Standing($id: ID!) {
  job(id: $id) { id ${WAIT} providerJobId providerStatus lastEvidence { source at } cost }
}`;

export const VIEWER = '{ viewer { role scopes organization { name } project { name } } }';

export const JOBS = `query Jobs($filter: JobFilter, $first: Int, $after: String) {
  jobs(filter: $filter, first: $first, after: $after) {
    nodes { ...Row ${WAIT} } pageInfo { hasNextPage endCursor } cursor
  }
} ${JOB_ROW}`;

export const STATS = `query Stats($filter: JobFilter) {
  stats(filter: $filter) { total byStatus { status count } }
}`;

export const HARDWARE = `{
  hardware { id name kind count memoryBytes lastSeenAt }
  providers { provider name canPause canResume metrics }
}`;

export const PROVIDERS = `{
  providers {
    provider name configured healthy methods canPause canResume canDeploy needsDeployment
    hasCheckpoints metrics webhooks credentialTrouble
  }
  providerCredentials { provider hint status checkedAt webhooksConfigured refusedWebhooks }
  stats(groupBy: PROVIDER) { groups { key total live cost } }
}`;

export const BASE_MODELS = `query Models($after: String) {
  baseModels(first: 200, after: $after) {
    nodes { name provider shutsDownOn missingSince } pageInfo { hasNextPage endCursor }
  }
}`;

export const SUNSETS = `subscription Sunsets($after: String) {
  modelSunsets(after: $after) { cursor provider model ends gone }
}`;

export const JOB_CHANGES = `subscription Jobs($after: String) {
  jobChanges(after: $after) { cursor type jobId job { ...Row } }
} ${JOB_ROW}`;

const DEPLOYMENT = 'id status requestedAction createdAt readyAt error { message }';

// Asked before the rest: what happens after these positions comes by subscription.
export const POSITIONS = `query Positions($id: ID!) {
  viewer { organization { cursor } } job(id: $id) { cursor }
}`;

const DATASET = 'id number caseCount dataset { name } file { id } report { tokenCount longestCaseTokens duplicateCount warnings }';

export const JOB = `query Job($id: ID!) {
  job(id: $id) {
    ...Row ${WAIT} providerJobId providerStatus lastEvidence { source at }
    method suffix seed metadata hardware hyperparameters resolvedHyperparameters
    trainedTokens cost estimatedCost
    trainingData { ${DATASET} }
    validationData { ${DATASET} }
    evaluation { graders { name } data { ${DATASET} } }
    checkpoints(first: 30) { nodes { id step attempt score sizeBytes createdAt metrics { trainingLoss validationLoss } } }
    attempts { number fromStep outcome createdAt startedAt finishedAt }
    resultFiles { id filename sizeBytes }
    model { id name kind sizeBytes deployments { ${DEPLOYMENT} } }
  }
} ${JOB_ROW}`;

const POINT = 'step attempt epoch trainingLoss validationLoss score learningRate nonFinite';

export const METRICS = `query Metrics($id: ID!, $maxPoints: Int!) {
  job(id: $id) { metrics(maxPoints: $maxPoints) { ${POINT} } }
}`;

export const JOB_METRICS = `subscription Metrics($jobId: ID!, $after: String) {
  jobMetrics(jobId: $jobId, after: $after) { cursor points { ${POINT} } }
}`;

export const EXAMPLES = `query Examples($id: ID!) {
  job(id: $id) {
    examples(first: 10) {
      nodes { split line loss flags duplicateOf sameInOther contradicts question answer }
      measured cases sampled
    }
  }
}`;

const EVENT = 'id cursor type level message at attempt step data';

// Everything but the metric points, which the chart shows.
export const EVENT_TYPES = [
  'STATUS', 'REQUESTED', 'DELETED', 'ATTEMPT_STARTED', 'ATTEMPT_ENDED', 'CHECKPOINT', 'SCORE', 'MESSAGE',
  'MODEL', 'RESULT',
];

export const EVENTS = `query Events($id: ID!, $after: String, $types: [JobEventType!]) {
  job(id: $id) {
    events(first: 200, after: $after, types: $types) {
      nodes { ${EVENT} } pageInfo { hasNextPage endCursor }
    }
  }
}`;

export const JOB_EVENTS = `subscription Events($jobId: ID!, $after: String, $types: [JobEventType!]) {
  jobEvents(jobId: $jobId, after: $after, types: $types) { ${EVENT} }
}`;

export const DEPLOYMENT_CHANGES = `subscription Deployments($modelId: ID, $after: String) {
  deploymentChanges(modelId: $modelId, after: $after) { cursor deployment { ${DEPLOYMENT} } }
}`;

export const DEPLOYMENT_FIELDS = `deployment { ${DEPLOYMENT} }`;
