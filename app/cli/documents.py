"""What the command line asks of the API."""

JOBS = """
query ($filter: JobFilter, $first: Int, $after: String) {
  jobs(filter: $filter, first: $first, after: $after) {
    nodes {
      id name status requestedAction provider baseModel method createdAt finishedAt
      progress { step totalSteps percent }
      latestMetrics { step trainingLoss validationLoss }
      model { id name }
    }
    pageInfo { hasNextPage endCursor }
  }
}"""

JOB = """
query ($id: ID!) {
  job(id: $id) {
    id name description status requestedAction isStale queueReason provider providerJobId
    providerStatus lastEvidence { source at } baseModel method
    suffix seed metadata hardware hyperparameters resolvedHyperparameters
    estimatedCost cost trainedTokens createdAt startedAt finishedAt
    error { code message param }
    progress {
      step totalSteps epoch totalEpochs percent trainedTokens tokensPerSecond estimatedFinishAt
    }
    latestMetrics {
      step trainingLoss validationLoss trainingAccuracy validationAccuracy score learningRate
      tokensPerSecond
    }
    trainingData { id number caseCount dataset { id name } }
    validationData { id number caseCount dataset { id name } }
    evaluation {
      samples temperature maxCases
      graders { name weight } data { id number caseCount dataset { id name } }
    }
    checkpoints(first: 50) {
      nodes { id step attempt score sizeBytes createdAt metrics { trainingLoss validationLoss } }
    }
    attempts { number fromStep outcome createdAt startedAt finishedAt }
    resultFiles { id filename sizeBytes }
    model { id name kind step sizeBytes deployments { id status } }
  }
}"""

JOB_NOW = """
query ($id: ID!) {
  job(id: $id) {
    id name status requestedAction baseModel error { code message }
    resolvedHyperparameters progress { step totalSteps } model { id name }
  }
}"""

JOB_EVENTS = """
query ($id: ID!, $after: String, $level: LogLevel, $types: [JobEventType!]) {
  job(id: $id) {
    events(first: 200, after: $after, level: $level, types: $types) {
      nodes { cursor type level message at attempt step data }
      pageInfo { hasNextPage endCursor }
    }
  }
}"""

JOB_EXAMPLES = """
query (
  $id: ID!, $first: Int, $after: String, $split: DataSplit, $flag: ExampleFlag
  $order: ExampleOrder!
) {
  job(id: $id) {
    status
    examples(first: $first, after: $after, split: $split, flag: $flag, orderBy: $order) {
      nodes {
        split line loss tokens flags duplicateOf sameInOther contradicts question answer
      }
      pageInfo { hasNextPage endCursor }
      measured cases sampled
    }
  }
}"""

_USER_ERRORS = """
userErrors {
  __typename message code path
  ... on DatasetInvalidError { problemCount problems { line field reason } }
  ... on LimitExceededError { limit }
}"""

SUBMIT_JOB = f"""
mutation ($input: SubmitJobInput!) {{
  submitJob(input: $input) {{
    job {{ id name status baseModel seed hyperparameters createdAt }}
    estimate {{ tokens epochs steps secondsLow secondsHigh cost currency basis }}
    warnings {_USER_ERRORS}
  }}
}}"""


def job_action(verb: str) -> str:
    """pause, resume, cancel or restart."""
    return f"""
mutation ($input: {verb.capitalize()}JobInput!) {{
  {verb}Job(input: $input) {{ job {{ id name status requestedAction }} {_USER_ERRORS} }}
}}"""


DELETE_JOB = f"""
mutation ($input: DeleteJobInput!) {{ deleteJob(input: $input) {{ deletedId {_USER_ERRORS} }} }}"""

_VERSION = """
id number caseCount sha256 createdAt
report {
  format caseCount tokenCount tokenizer longestCaseTokens duplicateCount duplicateLines warnings
}"""

CREATE_DATASET = f"""
mutation ($input: CreateDatasetInput!) {{
  createDataset(input: $input) {{
    dataset {{ id name }} version {{ {_VERSION} }} {_USER_ERRORS}
  }}
}}"""

DATASETS = """
query ($first: Int, $after: String) {
  datasets(first: $first, after: $after) {
    nodes {
      id name description createdAt
      latestVersion { id number caseCount createdAt report { tokenCount } }
    }
    pageInfo { hasNextPage endCursor }
  }
}"""

DATASET = "query ($id: ID!) { dataset(id: $id) { id name latestVersion { id } } }"

_MODEL = """
id name provider baseModel kind step sizeBytes createdAt job { id name }
deployments { id status hardware endpoint createdAt error { code message } }"""

MODELS = f"""
query ($filter: ModelFilter, $first: Int, $after: String) {{
  models(filter: $filter, first: $first, after: $after) {{
    nodes {{ {_MODEL} }} pageInfo {{ hasNextPage endCursor }}
  }}
}}"""

MODEL = f"query ($id: ID!) {{ model(id: $id) {{ {_MODEL} }} }}"

_DEPLOYMENT = "id status requestedAction endpoint error { code message } model { id name }"

DEPLOY_MODEL = f"""
mutation ($input: DeployModelInput!) {{
  deployModel(input: $input) {{ deployment {{ {_DEPLOYMENT} }} {_USER_ERRORS} }}
}}"""

UNDEPLOY_MODEL = f"""
mutation ($input: UndeployModelInput!) {{
  undeployModel(input: $input) {{ deployment {{ {_DEPLOYMENT} }} {_USER_ERRORS} }}
}}"""

RERUN_JOB = f"""
mutation ($input: RerunJobInput!) {{
  rerunJob(input: $input) {{ job {{ id name status rerunOf }} {_USER_ERRORS} }}
}}"""

COMPARE_JOBS = """
query ($ids: [ID!]!) {
  compareJobs(ids: $ids, maxPoints: 60) {
    jobs { id name }
    settings { name values same }
    results { name values same }
    curves { metric firstDifferentStep series { jobId points { step value } } }
  }
}"""

_CREDENTIAL = """
id provider hint status trouble checkedAt settings webhookPath webhooksConfigured refusedWebhooks
createdAt updatedAt"""

PROVIDERS = f"""
{{
  providers {{
    provider name configured healthy methods hyperparameters {{ method names }}
    canPause canResume canDeploy needsDeployment hasCheckpoints messages metrics webhooks
    longestSuffix credentialTrouble
  }}
  providerCredentials {{ {_CREDENTIAL} }}
}}"""

SET_PROVIDER_CREDENTIAL = f"""
mutation ($input: SetProviderCredentialInput!) {{
  setProviderCredential(input: $input) {{ credential {{ {_CREDENTIAL} }} {_USER_ERRORS} }}
}}"""

REMOVE_PROVIDER_CREDENTIAL = f"""
mutation ($input: RemoveProviderCredentialInput!) {{
  removeProviderCredential(input: $input) {{ removedId {_USER_ERRORS} }}
}}"""

_IMPORTED = "id name status provider providerJobId providerStatus baseModel createdAt"

IMPORT_JOBS = f"""
mutation ($input: ImportJobsInput!) {{
  importJobs(input: $input) {{
    imported {{ {_IMPORTED} }} known {{ {_IMPORTED} }} {_USER_ERRORS}
  }}
}}"""

BASE_MODELS = """
query ($first: Int, $after: String) {
  baseModels(first: $first, after: $after) {
    nodes { name provider description shutsDownOn missingSince }
    pageInfo { hasNextPage endCursor }
  }
}"""

# What `demo-providers` watches, and what it compares with that in the end.
PROVIDER_JOB_CHANGES = """
subscription ($filter: JobFilter, $after: String) {
  jobChanges(filter: $filter, after: $after) {
    cursor jobId statusThen
    job { id status providerJobId providerStatus queueReason isStale cost }
    progress { step totalSteps }
  }
}"""

JOB_METRICS = """
subscription ($jobId: ID!, $after: String) {
  jobMetrics(jobId: $jobId, after: $after) { cursor points { step trainingLoss } }
}"""

PROVIDER_JOB = """
query ($id: ID!) {
  job(id: $id) {
    id status provider providerJobId providerStatus cost error { message }
    metrics(maxPoints: 5000) { step trainingLoss } model { id name } lastEvidence { source at }
  }
}"""

API_KEYS = """
{ apiKeys { id name prefix scopes memberId projectId createdAt expiresAt revokedAt lastUsedAt } }"""

CREATE_API_KEY = f"""
mutation ($input: CreateApiKeyInput!) {{
  createApiKey(input: $input) {{
    apiKey {{ id name prefix scopes expiresAt }} secret {_USER_ERRORS}
  }}
}}"""

REVOKE_API_KEY = f"""
mutation ($input: RevokeApiKeyInput!) {{
  revokeApiKey(input: $input) {{ apiKey {{ id name prefix revokedAt }} {_USER_ERRORS} }}
}}"""
